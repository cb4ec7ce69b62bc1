"""Checks that commands in README.md and docs/ run, and links and paths exist.

Commands are in `sh` blocks. A `console` block shows output that needs a model
which this test does not have.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from certificates import Authority
from documents import (anchors, blocks, commands, documents, links,
                       named_paths)
from processes import BIN, PATIENCE_S, ROOT, Server, demo_model
from processes import scratch_folder

# These commands build, fetch from a registry, or run this test.
NOT_RUN = {
    "bash deploy/demo.sh",
    "bash tests/run.sh",
    "cmake --build --preset release --target massive_values_example",
    "python3 -m venv build/python && . build/python/bin/activate"
    " && pip install ./client/python",
}


class LinksTest(unittest.TestCase):

    def test_links_lead_somewhere(self):
        texts = documents()
        self.assertIn("README.md", texts)
        for name, text in texts.items():
            for link in links(text):
                with self.subTest(document=name, link=link):
                    path, _, anchor = link.partition("#")
                    target = ((ROOT / name).parent / path).resolve()
                    if not path:
                        target = ROOT / name
                    self.assertTrue(target.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(target.read_text()))

    def test_named_paths_exist(self):
        for name, text in documents().items():
            for path in named_paths(text):
                with self.subTest(document=name, path=path):
                    self.assertTrue((ROOT / path).exists())

    def test_a_bad_link_is_seen(self):
        text = "[a](docs/none.md) [b](#c) `server/none.cc`\n## C d, e\n"
        self.assertEqual(links(text), ["docs/none.md", "#c"])
        self.assertEqual(anchors(text), {"c-d-e"})
        self.assertEqual(named_paths(text), ["server/none.cc"])


class CommandsTest(unittest.TestCase):
    """Runs commands in a folder like the project's root, with a server."""

    @classmethod
    def setUpClass(cls):
        cls.texts = documents()
        cls.model = demo_model()
        spool = scratch_folder()
        cls.addClassCleanup(spool.cleanup)
        cls.server = Server({"smollm2": cls.model}, "--spool",
                            pathlib.Path(spool.name) / "spool")
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name in ("client", "deploy", "docs", "proto"):
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / "build" / "release").mkdir(parents=True)
        (self.folder / "build" / "release" / "bin").symlink_to(BIN)

    def run_command(self, command, server=None, **environment):
        server = server or self.server
        python = pathlib.Path(sys.executable).parent
        with self.subTest(command):
            result = subprocess.run(
                ["bash", "-o", "pipefail", "-c",
                 command.replace("127.0.0.1:7461", server.address)
                 .replace("127.0.0.1:9461", server.metrics_address)],
                check=False, cwd=self.folder, capture_output=True,
                encoding="utf-8", timeout=PATIENCE_S,
                env={**os.environ, "QKSCOPE_SERVER": server.address,
                     "PATH": f"{python}:{BIN}:{os.environ['PATH']}",
                     "PYTHONPATH": str(ROOT / "client" / "python"),
                     **environment})
            self.assertEqual(result.returncode, 0,
                             result.stdout + result.stderr)
        return result.stdout

    def check_server_command(self, command):
        """Checks that qkscoped would start with this command."""
        out = self.run_command(command.removesuffix(" &") + " --check-config")
        self.assertIn("configuration is valid", out)

    def run_document(self, name, least, server=None, **environment):
        shown = [command for command in commands(self.texts[name])
                 if command not in NOT_RUN]
        self.assertGreaterEqual(len(shown), least)
        for command in shown:
            if command.startswith("qkscoped "):
                self.check_server_command(command)
            else:
                self.run_command(command, server, **environment)

    def test_readme(self):
        self.run_document("README.md", 9)

    def test_using(self):
        self.run_document("docs/using.md", 20)
        (program,) = blocks(self.texts["docs/using.md"], "python")
        result = subprocess.run(
            [sys.executable, "-c", program], check=True, cwd=self.folder,
            stdout=subprocess.PIPE, encoding="utf-8")
        self.assertTrue(result.stdout.startswith("(9, 64) {"), result.stdout)

    def test_models(self):
        self.run_document("docs/models.md", 1)

    def test_runbook(self):
        self.run_command("qkctl user add ops --users-file users.conf "
                         "--role operator > ops.token")
        server = Server({"smollm2": self.model}, "--spool",
                        self.folder / "spool", "--users-file",
                        self.folder / "users.conf")
        self.addCleanup(server.stop)
        token = (self.folder / "ops.token").read_text().strip()
        self.run_document("docs/runbook.md", 30, server, QKSCOPE_TOKEN=token)

    def test_operating(self):
        text = self.texts["docs/operating.md"]
        shown = commands(text)
        (self.folder / "model.gguf").symlink_to(self.model)
        authority = Authority(self.folder, "ca")
        authority.issue("tls", "qkscope", "DNS:localhost,IP:127.0.0.1")

        before = [command for command in shown if "qkctl user" in command]
        self.assertEqual(len(before), 2)
        for command in before:
            self.run_command(command)
        (start,) = [c for c in shown if c.startswith("qkscoped ")]
        self.check_server_command(start)

        flags = ["--users-file", self.folder / "users.conf"]
        tls = Server({"smollm2": self.model}, *flags, "--tls-cert",
                     self.folder / "tls.crt", "--tls-key",
                     self.folder / "tls.key",
                     client_flags=["--tls-ca", authority.cert])
        self.addCleanup(tls.stop)
        (call,) = [c for c in shown if "qkscope.example:7461" in c]
        self.assertIn("smollm2", self.run_command(
            call.replace("qkscope.example:7461", tls.address)))

        models = self.folder / "models"
        models.mkdir()
        shutil.copy(self.model, models / "SmolLM2-135M-Instruct.gguf")
        (settings,) = blocks(text, "proto")
        self.assertIn('"/srv/qkscope/models"', settings)
        config = self.folder / "qkscoped.conf"
        config.write_text(settings.replace("/srv/qkscope/models", str(models)))
        admin = Server({}, "--config", config, *flags)
        self.addCleanup(admin.stop)
        token = (self.folder / "ops.token").read_text().strip()
        loads = [c for c in shown if c.startswith("qkctl model ")]
        self.assertEqual(len(loads), 3)
        for command in loads:
            self.run_command(command, admin, QKSCOPE_TOKEN=token)

        (self.folder / "prompts.txt").write_text("The city of Paris\n")
        kept = [c for c in shown if c.startswith("qkctl baseline ")]
        self.assertEqual(len(kept), 4)
        user = Server({"smollm2": self.model}, *flags)
        self.addCleanup(user.stop)
        for command in kept:
            self.run_command(command, user, QKSCOPE_TOKEN=token)
        (page,) = [c for c in shown if c.startswith("curl ")]
        self.assertIn("smollm2", self.run_command(page, user))
        self.assertEqual({*before, start, call, *loads, *kept, page},
                         set(shown))

    def test_other_documents_show_no_commands(self):
        run = {"README.md", "docs/using.md", "docs/models.md",
               "docs/operating.md", "docs/runbook.md"}
        for name in self.texts.keys() - run:
            self.assertEqual(commands(self.texts[name]), [], name)

    def test_what_is_not_run_is_shown(self):
        shown = {command for text in self.texts.values()
                 for command in commands(text)}
        self.assertLessEqual(NOT_RUN, shown)


if __name__ == "__main__":
    unittest.main()
