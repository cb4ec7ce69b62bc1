"""Runs the code of docs/coming_from.md: both of each pair, and compares the last
value of each. Needs the peers: tests/python/check_bridges.sh."""

import linecache
import os
import pathlib
import re
import tempfile
import unittest
import warnings

_SCRATCH = tempfile.TemporaryDirectory(prefix="qkscope_coming_from_")
os.environ.update(HF_HOME=_SCRATCH.name, HF_HUB_OFFLINE="1",
                  HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
from bridge_models import ROOT, make_text_model
from documents import blocks
from processes import Server

PAGE = ROOT / "docs" / "coming_from.md"
# Pairs of both codes, and single blocks, by the page's headings.
# nnsight comes last: it gives every object a save(), over which packages stumble
# that are imported later.
PAIRS = {"TransformerLens": 2, "lm-evaluation-harness": 1, "Inspect": 1,
         "nnsight": 1}
SINGLE = ["vllm-lens", "The paper's code"]


def sections():
    parts = re.split(r"^## (.*)$", PAGE.read_text("utf-8"), flags=re.M)
    return {name: blocks(text, "python")
            for name, text in zip(parts[1::2], parts[2::2])}


class ComingFromTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        os.chdir(ROOT)
        cls.path = make_text_model(pathlib.Path(_SCRATCH.name) / "model")
        cls.server = Server({"smollm2": cls.path})
        cls.addClassCleanup(_SCRATCH.cleanup)
        cls.addClassCleanup(cls.server.stop)
        cls.sections = sections()

    def run_block(self, code):
        """Runs the code; returns the name and the value that it ends with."""
        for shown, real in (("127.0.0.1:7461", self.server.address),
                            ("models/SmolLM2-135M-Instruct", str(self.path))):
            code = code.replace(shown, real)
        script = pathlib.Path(_SCRATCH.name) / "block.py"  # nnsight reads it.
        script.write_text(code)
        linecache.clearcache()
        space = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, str(script), "exec"), space)
        name = re.findall(r"^(\w+) = ", code, re.M)[-1]
        value = space[name]
        return name, value.detach().numpy() if hasattr(
            value, "detach") else value

    def test_the_page_has_these_sections(self):
        self.assertEqual({name: len(found)
                          for name, found in self.sections.items()},
                         {**{name: 2 * n for name, n in PAIRS.items()},
                          **dict.fromkeys(SINGLE, 1)})

    def test_both_codes_give_the_same(self):
        for name in PAIRS:
            found = self.sections[name]
            for theirs, ours in zip(found[::2], found[1::2]):
                with self.subTest(section=name):
                    their_name, wanted = self.run_block(theirs)
                    our_name, got = self.run_block(ours)
                    self.assertEqual(our_name, their_name)
                    if isinstance(wanted, str):
                        self.assertEqual(got, wanted)
                        self.assertTrue(got)
                    else:
                        self.assertGreater(np.abs(wanted).max(), 0)
                        np.testing.assert_allclose(got, wanted, atol=1e-4,
                                                   rtol=1e-4)

    def test_the_others_run(self):
        _, q = self.run_block(self.sections["vllm-lens"][0])
        self.assertEqual(q.shape[0], 2)
        _, kl = self.run_block(self.sections["The paper's code"][0])
        self.assertEqual(len(kl), 2)
        self.assertGreater(kl[0], 0)


if __name__ == "__main__":
    unittest.main()
