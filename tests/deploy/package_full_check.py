# row: Debian package: upgrade from another version, watchdog | run | full | 100
"""Upgrades the Debian packages, boots again, and stops the server's process."""

import time
import unittest

from machine import make_packages
from package_check import CONFIG, MODELS, UNIT, PackageCase
from programs import end_on_sigterm, wait_until
from rows import run, step

OLD = "0.0.9"
MINE = "# The administrator was here.\n"
LOG = "/var/log/qkscope/qkscoped.log"


class PackageFullTest(PackageCase):
    """One machine's life; each test goes on from the one before."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.old = make_packages(cls.work / "old", cls.build, "--version", OLD)
        # The old package's configuration is another one, so that dpkg has to
        # decide between the new one and the administrator's.
        tree = cls.work / "tree"
        server = cls.old["qkscope-server"]
        run("dpkg-deb", "--raw-extract", server, tree)
        with open(tree / CONFIG, "a", encoding="utf-8") as config:
            config.write("# As it was in the old package.\n")
        run("dpkg-deb", "--root-owner-group", "--build", tree, server)
        step("old packages")

    def version(self, name):
        return self.inside("dpkg-query", "--show",
                           "--showformat=${Version}", name)

    def test_1_upgrade_keeps_configuration_and_results(self):
        self.install(self.old)
        self.assertEqual(self.version("qkscope-server"), OLD)
        default = (self.root / CONFIG).read_text("utf-8")
        mine = f'{default}{MODELS}log_file: "{LOG}"\n{MINE}'
        self.configure(mine)
        self.inside("systemctl", "enable", "--now", UNIT)
        request = self.inside("qkctl", "analyze", "--prompt", "The city of",
                              "--detach").strip()
        result = self.inside("qkctl", "result", request)
        before = self.unit()["MainPID"]

        self.install(self.packages)
        self.assertNotEqual(self.version("qkscope-server"), OLD)
        unit = self.unit()
        self.assertEqual((unit["ActiveState"], unit["UnitFileState"]),
                         ("active", "enabled"))
        self.assertNotEqual(unit["MainPID"], before)
        self.assertTrue(self.serves())
        self.assertEqual((self.root / CONFIG).read_text("utf-8"), mine)
        self.assertTrue((self.root / f"{CONFIG}.dpkg-dist").exists())
        self.assertEqual(self.inside("qkctl", "result", request), result)
        step("upgraded")

    def test_2_upgrade_leaves_a_stopped_server_stopped(self):
        self.inside("systemctl", "disable", "--now", UNIT)
        self.install(self.old)
        self.install(self.packages)
        unit = self.unit()
        self.assertEqual((unit["ActiveState"], unit["UnitFileState"]),
                         ("inactive", "disabled"))
        step("stopped")

    def test_3_is_there_after_a_boot(self):
        self.inside("systemctl", "enable", UNIT)
        self.machine.stop()
        self.machine.boot()
        wait_until(self.serves, "serving")
        self.assertEqual(self.unit()["ActiveState"], "active")
        step("booted again")

    def test_4_logrotate(self):
        folder = self.root / "var/log/private/qkscope"
        before = self.unit()["MainPID"]
        self.inside("logrotate", "--force", "/etc/logrotate.d/qkscope-server")
        log = folder / "qkscoped.log"
        wait_until(log.exists, "a new log file")
        self.assertTrue((folder / "qkscoped.log.1").exists())
        self.assertEqual(self.unit()["MainPID"], before)
        self.inside("qkctl", "models")
        wait_until(lambda: "ListModels" in log.read_text("utf-8"),
                   "a line in the new file")
        step("logrotate")

    def test_5_watchdog(self):
        """A process that has stopped is ended by systemd, and replaced."""
        limit = int(self.unit()["WatchdogUSec"].removesuffix("s"))
        self.assertEqual(limit, 30)
        began = time.monotonic()
        seconds = self.end_with(
            lambda pid: self.inside("sh", "-c", f"kill -STOP {pid}"))
        # systemd's own word that it was the watchdog.
        journal = self.inside("journalctl", "--no-pager", "-u", UNIT)
        self.assertIn("Watchdog timeout", journal)
        # The watchdog's own signal has ended it, not the one that follows when
        # nothing else helps.
        self.assertIn("status=6/ABRT", journal)
        self.assertNotIn("timed out. Killing.", journal)
        # Fed every 15 s, so the limit passes 15 to 30 s after the stop.
        self.assertGreater(time.monotonic() - began, limit / 2)
        step(f"stopped by SIGSTOP, and ready again after {seconds:.1f} s")


if __name__ == "__main__":
    end_on_sigterm()
    unittest.main(failfast=True)
