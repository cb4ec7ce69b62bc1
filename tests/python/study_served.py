"""A server with a tiny model that reads printable ASCII, for tests of studies."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from byte_tokenizer import byte_tokenizer  # noqa: E402
from processes import PATIENCE_S, TINY_MODEL, Server  # noqa: E402

# The model's context is 256 tokens, and a letter is a token.
SMALL = """
name = "small"
kind = "tasks"
[arms]
clean = "clean"
disrupted = "family"
control = "family"
[[models]]
name = "tiny"
chat_format = "none"
[[tasks]]
name = "sports"
count = 12
max_new_tokens = 5
[[tasks]]
name = "passkey"
count = 6
max_new_tokens = 4
lengths = [0]
perplexity = true
"""
VALUES = """
name = "values"
kind = "massive_values"
lambda = 1.5
keep_norms = 1
[arms]
clean = "clean"
disrupted = "top_k:1"
control = "bottom_k:1"
[[models]]
name = "tiny"
[[tasks]]
name = "sports"
count = 4
"""


def tiny_model(folder):
    """Copies the model and gives it a tokenizer: an id per character."""
    model = pathlib.Path(shutil.copytree(TINY_MODEL, folder))
    letters = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]
    (model / "tokenizer.json").write_text(json.dumps(
        byte_tokenizer(letters, [])))
    return model


class ServedCase(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_study_")
        cls.addClassCleanup(folder.cleanup)
        cls.shared = pathlib.Path(folder.name)
        model = tiny_model(cls.shared / "model")
        cls.server = Server({"tiny": model, "variant": model})
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def study(self, *arguments, expect=0):
        """Runs the command line; returns its result."""
        result = subprocess.run(
            [sys.executable, "-B", "-m", "qkscope.study",
             *map(str, arguments)], cwd=self.folder, capture_output=True,
            encoding="utf-8", timeout=PATIENCE_S, check=False,
            env={**os.environ, "QKSCOPE_SERVER": self.server.address,
                 "MPLCONFIGDIR": str(self.shared / "mpl")})
        self.assertEqual(result.returncode, expect,
                         f"{arguments}\n{result.stdout}\n{result.stderr}")
        return result

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name
