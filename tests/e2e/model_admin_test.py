"""Tests qkctl model on a real server: load, replace, unload, and who may."""

import hashlib
import pathlib
import shutil
import sys
import unittest

from processes import ROOT, TINY_MODEL, Server, qkctl
from processes import qkctl_on_terminal, scratch_folder

GOLDENS = ROOT / "tests" / "goldens"
IDS = ["--token-ids", "3,1,41,59"]


class ModelAdminTest(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        folder = pathlib.Path(folder.name)
        for name in ("tiny_llama_gqa", "tiny_llama_tied"):
            shutil.copytree(GOLDENS / name, folder / "models" / name)
        users = "".join(
            f"users {{ alias: '{alias}' role: '{role}' token_sha256: "
            f"'{hashlib.sha256(alias.encode()).hexdigest()}' }}\n"
            for alias, role in (("ada", "user"), ("ops", "operator")))
        config = folder / "q.conf"
        config.write_text(
            users + f"model_admin {{ enabled: true root: '{folder}/models' "
            "max_models: 2 eviction: LRU }\n")
        self.server = Server({}, "--config", config, client_flags=[])
        self.addCleanup(self.server.stop)

    def run_as(self, user, *arguments, code=0):
        result = qkctl(self.server, *arguments, token=user)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout + result.stderr

    def test_load_use_unload(self):
        self.run_as("ada", "model", "load", "a", "tiny_llama_gqa", code=12)
        text = self.run_as("ops", "model", "load", "a", "tiny_llama_gqa")
        self.assertRegex(text, "^a is ready: llama, 2 layers, f32, .* SHA-256 ")
        self.run_as("ada", "analyze", "--model", "a", *IDS)
        self.run_as("ops", "model", "load", "a", "tiny_llama_gqa", code=4)
        self.run_as("ops", "model", "load", "a", "tiny_llama_tied",
                    "--replace", "--compute", "bf16")
        self.assertIn("bf16", self.run_as("ada", "models", "a"))
        self.run_as("ops", "model", "load", "b", "../models/tiny_llama_gqa",
                    code=12)
        self.run_as("ops", "model", "load", "b", "none", code=5)
        self.run_as("ops", "model", "load", "b", "tiny_llama_gqa", "--sha256",
                    "0" * 64, code=13)
        self.run_as("ops", "model", "unload", "a")
        self.run_as("ada", "analyze", "--model", "a", *IDS, code=5)
        self.assertIn("users: 2 users (as before)",
                      self.run_as("ops", "model", "reload-config"))
        self.run_as("ops", "model", "load", "b", code=2)

    def test_progress_on_a_terminal(self):
        code, shown = qkctl_on_terminal(
            self.server, "model", "load", "a", "tiny_llama_gqa",
            environment={"QKSCOPE_TOKEN": "ops"})
        self.assertEqual(code, 0, shown)
        self.assertIn("a: checking", shown)
        self.assertIn("a: warming up", shown)
        self.assertIn("a is ready", shown)


class OffTest(unittest.TestCase):
    def test_without_configuration(self):
        with Server({"tiny": TINY_MODEL}) as server:
            # Everybody is a user here, and nobody is an operator.
            result = qkctl(server, "model", "load", "a", "x")
            self.assertEqual(result.returncode, 12)
            self.assertIn("may not call LoadModel", result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
