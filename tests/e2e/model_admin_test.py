"""Tests qkctl model on a real server: load, replace, unload, and who may."""

import hashlib
import json
import pathlib
import shutil
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file, save_file

from processes import ROOT, TINY_MODEL, Server, qkctl
from processes import qkctl_on_terminal, scratch_folder

GOLDENS = ROOT / "tests" / "goldens"
IDS = ["--token-ids", "3,1,41,59"]


def make_odd(folder):
    """A model with a field and a tensor that are not implemented."""
    shutil.copytree(TINY_MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "nobodys": 1}))
    tensors = load_file(folder / "model.safetensors")
    tensors["mtp.a"] = np.zeros(1, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


class ModelAdminTest(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        folder = self.folder = pathlib.Path(folder.name)
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

    def test_ignored_parts(self):
        odd = self.folder / "models" / "odd"
        make_odd(odd)
        text = self.run_as("ops", "model", "load", "odd", "odd", code=4)
        self.assertIn("config: nobodys: a field that is not implemented", text)
        flags = ["--ignore", "nobodys", "--ignore-tensors", "mtp.*"]
        self.run_as("ops", "model", "load", "odd", "odd", "--ignore", "other",
                    *flags, code=4)
        self.run_as("ops", "model", "load", "odd", "odd", *flags)
        shown = self.run_as("ada", "models", "odd")
        self.assertRegex(shown, r"ignored fields +nobodys\n")
        self.assertRegex(shown, r"ignored tensors +mtp\.\*\n")
        self.run_as("ada", "analyze", "--model", "odd", *IDS)

    def test_progress_on_a_terminal(self):
        code, shown = qkctl_on_terminal(
            self.server, "model", "load", "a", "tiny_llama_gqa",
            environment={"QKSCOPE_TOKEN": "ops"})
        self.assertEqual(code, 0, shown)
        self.assertIn("a: checking", shown)
        self.assertIn("a: warming up", shown)
        self.assertIn("a is ready", shown)


class IgnoredByFlagTest(unittest.TestCase):
    def test_a_manifest_says_so(self):
        with scratch_folder() as name:
            folder = pathlib.Path(name)
            make_odd(folder / "odd")
            model = f"{folder}/odd,ignore=nobodys,ignore_tensors=mtp.*+mtp.a"
            with Server({"odd": model}) as server:
                result = qkctl(server, "analyze", "--model", "odd", *IDS,
                               "--manifest", folder / "m.json")
            self.assertEqual(result.returncode, 0, result.stderr)
            manifest = json.loads((folder / "m.json").read_text())
        self.assertEqual(manifest["ignored_fields"], ["nobodys"])
        self.assertEqual(manifest["ignored_tensors"], ["mtp.*", "mtp.a"])


class OffTest(unittest.TestCase):
    def test_without_configuration(self):
        with Server({"tiny": TINY_MODEL}) as server:
            # Everybody is a user here, and nobody is an operator.
            result = qkctl(server, "model", "load", "a", "x")
            self.assertEqual(result.returncode, 12)
            self.assertIn("may not call LoadModel", result.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
