"""Tests what --check-config finds: everything that keeps a server from starting
or from serving anybody."""

import errno
import hashlib
import json
import os
import pathlib
import socket
import sys
import unittest

from access_test import add_user
from edges_test import failing, remove
from processes import TINY_MODEL, Server, qkctl, scratch_folder
from server_process_test import EX_CONFIG, qkscoped

WEIGHTS = hashlib.sha256(
    (TINY_MODEL / "model.safetensors").read_bytes()).hexdigest()
LISTEN = "listen: '127.0.0.1:0' metrics_listen: '127.0.0.1:0'\n"
MODEL = f"models {{ name: 'tiny' path: '{TINY_MODEL}' }}\n"


class CheckConfigTest(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.users = self.folder / "users.conf"
        self.path = self.folder / "q.conf"

    def check(self, text, environment=None):
        """Returns the exit status and the lines of standard error."""
        self.path.write_text(text)
        result = qkscoped("--config", self.path, "--check-config",
                          environment=environment)
        lines = [line.removeprefix("qkscoped: ").replace(
            f"{self.folder}/", "") for line in result.stderr.splitlines()]
        self.assertEqual(result.returncode == 0,
                         "configuration is valid" in result.stdout)
        return result.returncode, lines

    def finds(self, text, *lines, more=LISTEN + MODEL, environment=None):
        self.assertEqual(self.check(more + text, environment),
                         (EX_CONFIG, list(lines)))

    def warns(self, text, *lines, more=LISTEN + MODEL):
        self.assertEqual(self.check(more + text),
                         (0, [f"warning: {line}" for line in lines]))

    def test_r33_a_good_configuration_has_no_findings(self):
        token = add_user(self.users, "ada", "--models", "tiny")
        self.assertTrue(token)
        spool = self.folder / "spool"
        self.warns(f"users_file: '{self.users}' "
                   f"spool {{ directory: '{spool}' }} "
                   f"log_file: '{self.folder}/log' "
                   "limits { max_buffered_bytes: 3000000000 } "
                   f"models {{ name: 'b' path: '{TINY_MODEL}' "
                   f"sha256: '{WEIGHTS.upper()}' }}")
        # It makes nothing.
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["q.conf", "users.conf"])

    def test_r33_a_wrong_sha256(self):
        self.finds(f"models {{ name: 'b' path: '{TINY_MODEL}' "
                   f"sha256: '{'0' * 64}' }}",
                   f"model 'b': sha256 is {WEIGHTS}, expected {'0' * 64}")

    def test_r33_no_model(self):
        self.finds("", "models: there are none, and model_admin, which could "
                   "load some, is off", more=LISTEN)
        root = self.folder / "root"
        root.mkdir()
        admin = f"model_admin {{ enabled: true root: '{root}' }} "
        add_user(self.users, "ops", "--role", "operator")
        self.warns(admin + f"users_file: '{self.users}'", more=LISTEN)

    def test_r33_unknown_allowed_models(self):
        add_user(self.users, "ada", "--models", "tiny")
        add_user(self.users, "bob", "--models", "tinyy,other")
        users = f"users_file: '{self.users}' "
        line = self.users.read_text().splitlines().index('  alias: "bob"')
        where = (f"users.conf:{line}: users[1].allowed_models: there is no "
                 "model ")
        self.finds(users, where + "'tinyy'; did you mean 'tiny'?",
                   where + "'other'")
        root = self.folder / "root"
        root.mkdir()
        self.warns(users + f"model_admin {{ enabled: true root: '{root}' }}",
                   where + "'tinyy' until somebody loads it",
                   where + "'other' until somebody loads it",
                   "model_admin: no user is an operator, so nobody can load "
                   "models")

    def test_r33_nobody_can_call(self):
        self.users.touch()
        self.warns(f"users_file: '{self.users}'",
                   "users: there are none, so nobody can call")

    def test_r33_ports_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            problem = f"cannot bind '{address}': Address already in use"
            self.finds(f"listen: '{address}' metrics_listen: '127.0.0.1:0'",
                       f"listen: {problem}", more=MODEL)
            self.finds(f"listen: '127.0.0.1:0' metrics_listen: '{address}'",
                       f"metrics_listen: {problem}", more=MODEL)
        self.finds("listen: '127.0.0.1:9' metrics_listen: '127.0.0.1:9'",
                   "q.conf: metrics_listen: port 9 is already used by listen",
                   more=MODEL)

    def test_r33_folders_of_baselines_that_cannot_be_used(self):
        folder = self.folder / "kept"
        config = f"baseline_dir: '{folder}'"
        self.warns(config)
        self.assertFalse(folder.exists())
        folder.touch()
        self.finds(config, "baseline_dir: kept: is not a folder")
        deep = folder.with_name("none") / "kept"
        self.finds(f"baseline_dir: '{deep}'",
                   "baseline_dir: none/kept: cannot be made: folder none "
                   f"cannot be written: {os.strerror(errno.ENOENT)}")

    def test_r33_spools_that_cannot_be_used(self):
        spool = self.folder / "spool"
        config = f"spool {{ directory: '{spool}' }}"
        spool.touch()
        self.finds(config, "spool.directory: spool: is not a folder")
        deep = spool.with_name("none") / "spool"
        self.finds(f"spool {{ directory: '{deep}' }}",
                   "spool.directory: none/spool: cannot be made: folder none "
                   "cannot be written: No such file or directory")
        spool.unlink()
        for folder in (spool, self.folder):
            with self.subTest(folder):
                problem = f"cannot be written: {os.strerror(errno.EROFS)}"
                if folder == self.folder:
                    problem = f"cannot be made: folder {folder} {problem}"
                else:
                    spool.mkdir()
                self.finds(config, f"spool.directory: spool: {problem}",
                           environment=failing("open", folder, errno.EROFS))
                remove(spool)
        with Server({"tiny": TINY_MODEL}, "--spool", spool) as server:
            self.finds(config, "spool.directory: spool: in use by another "
                       "server")
            self.assertEqual(qkctl(server, "models").returncode, 0)
        self.warns(config)
        self.finds(f"spool {{ directory: '{spool}' max_bytes: 100 }}",
                   "spool.max_bytes: is 100 B, which no result fits into")

    def test_r33_numbers_that_contradict_each_other(self):
        self.finds("limits { max_buffered_bytes: 1000 }",
                   "limits.max_buffered_bytes: is 1000 B, which no answer "
                   "fits into")
        problem = ("limits.max_response_bytes: is 2 GiB, but no answer may be "
                   "larger than limits.max_buffered_bytes, 1 MiB")
        self.finds("limits { max_buffered_bytes: 1048576 "
                   "max_response_bytes: 2147483648 }", problem)
        self.warns("limits { max_buffered_bytes: 1048576 }", problem)
        model = json.loads((TINY_MODEL / "config.json").read_text())
        position = (2 * 4 * model["num_hidden_layers"]
                    * model["num_key_value_heads"] * model["hidden_size"]
                    // model["num_attention_heads"])
        self.finds("limits { kv_cache_bytes: 100 }",
                   "model 'tiny': limits.kv_cache_bytes is 100, but a page "
                   f"has {64 * position} bytes, so that no prompt fits")
        sha = hashlib.sha256(b"x").hexdigest()
        self.warns(f"users {{ alias: 'a' token_sha256: '{sha}' budget {{ "
                   "max_in_flight: 2 max_queued: 5 } }",
                   "q.conf: users[0].budget.max_queued: is 5, but only 2 "
                   "requests may run or wait (max_in_flight), so it has no "
                   "effect")
        self.warns(f"users {{ alias: 'a' token_sha256: '{sha}' budget {{ "
                   "device_ms_per_window: 20000 window_s: 10 } } "
                   "limits { max_text_bytes: 8388608 }",
                   "q.conf: users[0].budget.device_ms_per_window: is 20000, "
                   "more than the window of 10 s has, so it has no effect",
                   "limits.max_text_bytes: is 8 MiB, but no message may be "
                   "larger than 4 MiB")

    def test_r33_all_problems_at_once(self):
        bad = self.folder / "bad.gguf"
        bad.write_bytes(b"not a model at all, but long enough to be read")
        status, lines = self.check(
            LISTEN + f"models {{ name: 'a' path: '{bad}' }} "
            f"models {{ name: 'b' path: '{self.folder}/none' }} "
            f"users_file: '{self.folder}/nobody' "
            f"log_file: '{self.folder}' "
            "limits { max_buffered_bytes: 1 }")
        self.assertEqual(status, EX_CONFIG)
        beginnings = ["model 'a': bad.gguf: ", "model 'b': ", "users_file: ",
                      "log_file: ", "limits.max_buffered_bytes: "]
        self.assertEqual(len(lines), len(beginnings), lines)
        for line, beginning in zip(lines, beginnings):
            self.assertTrue(line.startswith(beginning), lines)
        # Values that are bad by themselves come first, and all of them.
        self.finds("limits { max_arms: 0 max_new_tokens: -1 } keepalive_s: 0 "
                   "keepalive_timeout_s: -5 threads: 0 log_level: 'loud' "
                   "models { name: '' path: 'x' } models { name: 'c' }",
                   "q.conf: models[1].name: must not be empty",
                   "q.conf: models[2].path: must not be empty",
                   "q.conf: limits.max_arms: must be > 0, got 0",
                   "q.conf: limits.max_new_tokens: must be > 0, got -1",
                   "q.conf: log_level: must be debug, info, warn or error, "
                   "got 'loud'",
                   "q.conf: threads: must be in [1, 1024], got 0",
                   "q.conf: keepalive_s: must be in [1, 86400], got 0",
                   "q.conf: keepalive_timeout_s: must be in [1, 86400], got "
                   "-5")


if __name__ == "__main__":
    sys.exit(unittest.main())
