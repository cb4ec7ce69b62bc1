"""What a path of the configuration may lead to, at the start and later: the
server says what is wrong and where, and a running one goes on."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from certificates import Authority
from processes import BIN, PATIENCE_S, PATIENT, ROOT, TINY_MODEL, Server
from processes import qkctl, scratch_folder, wait_until
from access_test import add_user

EX_OSERR, EX_TEMPFAIL, EX_CONFIG = 71, 75, 78
IDS = ["analyze", "--model", "tiny", "--token-ids", "3,1,41,59"]


def failing(call, path, error, trigger=None):
    """Returns the environment of a process in which a call on a file fails."""
    more = {"FAIL_IO_WHILE": str(trigger)} if trigger else {}
    return {**os.environ, "LD_PRELOAD": str(BIN / "fail_io.so"),
            "FAIL_IO_CALL": call, "FAIL_IO_FILE": str(path),
            "FAIL_IO_ERRNO": str(error), **more}


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def one_gib(path):
    with open(path, "wb") as file:
        file.truncate(1 << 30)


# What stands in place of a file: how to make it.
KINDS = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "full device": lambda path: path.symlink_to("/dev/full"),
    "ring": lambda path: path.symlink_to(path.name),
    "empty": lambda path: path.touch(),
    "1 GiB": one_gib,
    "read error": lambda path: path.symlink_to("/proc/self/mem"),
}
# Calls that fail on a good file, and the exit status at the start.
FAULTS = {
    "unreadable": ("open", errno.EACCES, EX_CONFIG),
    "EMFILE": ("open", errno.EMFILE, EX_TEMPFAIL),
    "ENOMEM": ("open", errno.ENOMEM, EX_TEMPFAIL),
    "EIO": ("open", errno.EIO, EX_TEMPFAIL),
    "EIO in read": ("read", errno.EIO, EX_TEMPFAIL),
    "ENOMEM in mmap": ("mmap", errno.ENOMEM, EX_TEMPFAIL),
    "EIO in mmap": ("mmap", errno.EIO, EX_TEMPFAIL),
}


class EdgesCase(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.authority = Authority(self.folder, "authority")
        pair = self.authority.issue("server", "localhost",
                                    "DNS:localhost,IP:127.0.0.1")
        self.model = self.folder / "model"
        shutil.copytree(TINY_MODEL, self.model)
        self.files = {
            "--config": self.folder / "q.conf",
            "users_file": self.folder / "users.conf",
            "tls.certificate_file": self.folder / "c.pem",
            "tls.key_file": self.folder / "k.pem",
            "tls.client_ca_file": self.folder / "ca.pem",
            "log_file": self.folder / "log",
        }
        self.sources = {
            "--config": self.folder / "config.source",
            "users_file": self.folder / "users.source",
            "tls.certificate_file": pair.cert,
            "tls.key_file": pair.key,
            "tls.client_ca_file": self.authority.cert,
            "log_file": None,
        }
        self.sources["--config"].write_text(PATIENT)
        self.token = add_user(self.sources["users_file"], "ada")
        for key in self.files:
            self.put_back(key)

    def put_back(self, key):
        """Makes a file good again, by a rename."""
        path, source = self.files[key], self.sources[key]
        if source is None or path.is_dir():
            remove(path)
        if source is not None:
            new = path.with_name(path.name + ".new")
            shutil.copy2(source, new)
            new.chmod(0o600)
            new.rename(path)

    def flags(self, listen=True):
        flags = ["--config", self.files["--config"],
                 "--users-file", self.files["users_file"],
                 "--tls-cert", self.files["tls.certificate_file"],
                 "--tls-key", self.files["tls.key_file"],
                 "--tls-client-ca", self.files["tls.client_ca_file"],
                 "--log-file", self.files["log_file"],
                 "--spool", self.folder / "spool",
                 "--model", f"tiny={self.model}"]
        if listen:
            flags += ["--listen", "127.0.0.1:0", "--metrics-listen", ""]
        return [str(flag) for flag in flags]

    def start(self, environment=None, more=()):
        """Runs a server that is expected to end; returns status and stderr."""
        result = subprocess.run(
            [BIN / "qkscoped", *self.flags(), *map(str, more)],
            env=environment, capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL)
        self.assertNotIn("terminate", result.stderr)
        return result.returncode, result.stderr


class StartTest(EdgesCase):
    # Nobody may call, there are no options, or the log goes on.
    GOOD = {("users_file", "empty"), ("--config", "empty"),
            ("log_file", "missing"), ("log_file", "empty"),
            ("log_file", "1 GiB"), ("log_file", "read error")}

    def expect(self, what, expected, names, environment=None, more=()):
        with self.subTest(what):
            status, text = self.start(environment, more)
            self.assertEqual(status, expected, text)
            for name in names:
                self.assertIn(str(name), text)

    def test_r23_files_at_the_start(self):
        for key, path in self.files.items():
            for kind, make in KINDS.items():
                if (key, kind) in self.GOOD:
                    continue
                remove(path)
                make(path)
                self.expect(f"{key}: {kind}",
                            EX_TEMPFAIL if kind == "read error" else EX_CONFIG,
                            [f"{key}: ", path])
                self.put_back(key)

    def test_r23_faults_of_the_machine_at_the_start(self):
        for key, path in self.files.items():
            for fault, (call, error, expected) in FAULTS.items():
                if call == "mmap" or (key, call) == ("log_file", "read"):
                    continue
                self.expect(f"{key}: {fault}", expected,
                            [f"{key}: ", path, os.strerror(error)],
                            failing(call, path, error))

    def test_r23_model_files_at_the_start(self):
        for name in ("config.json", "model.safetensors"):
            path = self.model / name
            good = path.read_bytes()
            for kind, make in KINDS.items():
                remove(path)
                make(path)
                names = ["model: has"] if kind == "missing" else [f"{name}: "]
                faulty = kind == "read error" and name == "config.json"
                self.expect(f"{name}: {kind}",
                            EX_TEMPFAIL if faulty else EX_CONFIG, names)
                remove(path)
                path.write_bytes(good)
            for fault, (call, error, expected) in FAULTS.items():
                if call == ("mmap" if name == "config.json" else "read"):
                    continue
                self.expect(f"{name}: {fault}", expected, [f"{name}: "],
                            failing(call, path, error))

    def test_r23_a_tokenizer_that_cannot_be_read_is_not_passed_over(self):
        path = self.model / "tokenizer.json"
        path.write_text("{}")
        self.expect("tokenizer.json", EX_TEMPFAIL, ["tokenizer.json: "],
                    failing("open", path, errno.EMFILE))

    def test_r23_folders_at_the_start(self):
        root = self.folder / "root"
        for kind, make in KINDS.items():
            if kind == "folder":
                continue
            remove(root)
            make(root)
            self.files["--config"].write_text(
                f"model_admin {{ enabled: true root: '{root}' }}")
            self.expect(f"model_admin.root: {kind}", EX_CONFIG,
                        ["model_admin.root: ", root])
        remove(root)
        root.mkdir()
        self.expect("model_admin.root: EMFILE", EX_TEMPFAIL,
                    ["model_admin.root: ", root],
                    failing("open", root, errno.EMFILE))

    def test_r23_spools_at_the_start(self):
        spool = self.folder / "spool"
        for kind, make in KINDS.items():
            if kind in ("missing", "folder"):
                continue
            remove(spool)
            make(spool)
            self.expect(f"spool.directory: {kind}", EX_CONFIG,
                        ["spool.directory: "])

    def test_r23_check_config_says_the_same(self):
        path = self.files["users_file"]
        for kind in ("folder", "fifo", "missing"):
            remove(path)
            KINDS[kind](path)
            self.expect(kind, EX_CONFIG, ["users_file: ", path],
                        more=["--check-config"])
        self.put_back("users_file")
        self.expect("EMFILE", EX_TEMPFAIL, ["users_file: ", path],
                    failing("open", path, errno.EMFILE), ["--check-config"])
        config = self.model / "config.json"
        self.expect("a model", EX_TEMPFAIL, ["model 'tiny': config.json: "],
                    failing("open", config, errno.EMFILE), ["--check-config"])

    def test_r23_few_descriptors_are_no_bad_configuration(self):
        # With a few more, gRPC has too few for itself and aborts.
        for most in (4, 5):
            result = subprocess.run(
                ["bash", "-c", f"ulimit -n {most}; exec \"$@\"", "x",
                 BIN / "qkscoped", "--listen", "127.0.0.1:0",
                 "--metrics-listen", "127.0.0.1:0", "--users-file",
                 self.files["users_file"], "--model", f"tiny={self.model}"],
                capture_output=True, encoding="utf-8", timeout=PATIENCE_S,
                check=False, stdin=subprocess.DEVNULL)
            self.assertIn(result.returncode, (EX_OSERR, EX_TEMPFAIL),
                          f"{most}: {result.stderr}")
            self.assertIn("Too many open files", result.stderr)


    def test_r23_the_unit_restarts_all_but_a_bad_configuration(self):
        unit = (ROOT / "deploy/systemd/qkscoped.service").read_text()
        lines = unit.splitlines()
        self.assertIn("Restart=on-failure", lines)
        self.assertEqual([line for line in lines
                          if line.startswith("RestartPreventExitStatus")],
                         [f"RestartPreventExitStatus={EX_CONFIG}"])


class ClientTest(unittest.TestCase):
    """Files of qkctl, which reads them before it calls anybody."""

    EXIT_FILE = 13
    FLAGS = {
        "--token-file": ["models"],
        "--tls-ca": ["models"],
        "--prompt-file": ["tokenize", "--model", "m"],
        "--image": ["tokenize", "--model", "m", "--prompt", "x"],
        "--users-file": ["user", "list"],
        "--jsonl": ["analyze-many", "--model", "m"],
    }

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "file"

    def test_r23_files_of_the_client(self):
        for kind in ("missing", "folder", "device", "ring", "read error"):
            for flag, words in self.FLAGS.items():
                if (kind, flag) in {("missing", "--users-file"),
                                    ("device", "--jsonl")}:
                    continue  # nobody; a pipe of 1 GiB
                remove(self.path)
                KINDS[kind](self.path)
                with self.subTest(f"{flag}: {kind}"):
                    result = qkctl("127.0.0.1:1", *words, flag, self.path)
                    self.assertEqual(result.returncode, self.EXIT_FILE,
                                     result.stderr)
                    self.assertIn(f"cannot read {self.path}: ", result.stderr)

    def test_r23_standard_input_that_is_a_folder(self):
        folder = os.open(self.path.parent, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        result = subprocess.run(
            [BIN / "qkctl", "tokenize", "--model", "m", "--prompt", "-"],
            stdin=folder, capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S, check=False)
        self.assertEqual(result.returncode, self.EXIT_FILE, result.stderr)
        self.assertIn("cannot read standard input: ", result.stderr)

    def test_r23_a_users_file_is_no_fifo(self):
        os.mkfifo(self.path)
        for words in (["list"], ["add", "ada"]):
            result = qkctl("", "user", *words, "--users-file", self.path)
            self.assertEqual(result.returncode, self.EXIT_FILE, result.stderr)
            self.assertIn("is not a regular file", result.stderr)


class RunningTest(EdgesCase):
    """Files that change under a running server."""

    WATCHED = {"--config": "users_not_reloaded",
               "users_file": "users_not_reloaded",
               "tls.certificate_file": "tls_not_reloaded",
               "tls.key_file": "tls_not_reloaded",
               "tls.client_ca_file": "tls_not_reloaded"}

    def run_server(self, environment=None):
        if not hasattr(self, "client"):
            self.client = self.authority.issue("client", "client 1")
            self.config_users = self.folder / "more.conf"
            self.config_token = add_user(self.config_users, "bob")
        pair = self.client
        self.client_flags = ["--tls-ca", self.authority.cert, "--tls-cert",
                             pair.cert, "--tls-key", pair.key,
                             "--tls-server-name", "localhost"]
        self.sources["--config"].write_text(
            PATIENT + self.config_users.read_text())
        self.put_back("--config")
        flags = self.flags(listen=False)
        at = flags.index("--log-file")
        del flags[at:at + 2]
        at = flags.index("--model")
        del flags[at:at + 2]
        server = Server({"tiny": self.model}, *flags,
                        client_flags=self.client_flags,
                        environment=environment)
        self.addCleanup(server.stop)
        return server

    def serves(self, server):
        for token in (self.token, self.config_token):
            result = qkctl(server, *IDS, token=token)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_r23_whatever_a_file_becomes_the_old_one_stays(self):
        server = self.run_server()
        self.serves(server)
        for key, event in self.WATCHED.items():
            path = self.files[key]
            reloaded = event.replace("_not", "")
            for kind, make in KINDS.items():
                if (key, kind) in StartTest.GOOD:
                    continue
                with self.subTest(f"{key}: {kind}"):
                    seen = len(server.log)
                    remove(path)
                    make(path)
                    wait_until(lambda: any(
                        event in line and key in line and str(path) in line
                        for line in server.log[seen:]), server.log_text)
                    self.serves(server)
                    seen = len(server.log)
                    self.put_back(key)
                    wait_until(lambda: any(reloaded in line
                                           for line in server.log[seen:]),
                               server.log_text)
        self.serves(server)
        server.send_signal(15)
        self.assertEqual(server.wait(), 0)

    def test_r23_a_fault_that_passes_is_tried_again(self):
        trigger = self.folder / "trigger"
        path = self.files["users_file"]
        for call, error in (("open", errno.EMFILE), ("read", errno.EIO)):
            server = self.run_server(failing(call, path, error, trigger))
            trigger.touch()
            token = add_user(self.sources["users_file"], f"eve-{call}")
            self.put_back("users_file")
            server.await_log("users_not_reloaded")
            self.serves(server)
            self.assertNotEqual(qkctl(server, *IDS, token=token).returncode, 0)
            trigger.unlink()  # and the file does not change again
            server.await_log('"users_reloaded"')
            self.assertEqual(qkctl(server, *IDS, token=token).returncode, 0)
            # A fault that lasts is said once.
            self.assertEqual(server.log_text().count("users_not_reloaded"), 1)
            server.stop()


if __name__ == "__main__":
    sys.exit(unittest.main())
