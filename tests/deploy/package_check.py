# row: Debian package: built, lintian, installed, killed, removed | run | quick | 110
"""Installs the Debian packages on a machine with systemd and uses them."""

import json
import os
import pathlib
import shutil
import subprocess
import time
import unittest

from machine import Machine, dependencies, make_packages, root_archive
from programs import end_on_sigterm, wait_until, work_folder
from rows import build_folder, need, need_root, run, sbom_faults, step

UNIT = "qkscoped.service"
CONFIG = "etc/qkscope/qkscoped.conf"
MODEL = "/srv/qkscope/models/smollm2.gguf"
MODELS = f'models {{ name: "smollm2" path: "{MODEL}" }}\n'
EX_CONFIG = 78


class PackageCase(unittest.TestCase):
    """A machine on which `packages` can be installed."""

    @classmethod
    def setUpClass(cls):
        need_root()
        need("dpkg-buildpackage", "lintian", "mmdebstrap", "systemd-nspawn")
        cls.build = build_folder()
        cls.work = work_folder(cls)
        step("packages")
        cls.packages = make_packages(cls.work / "new", cls.build)
        step("root")
        archive = root_archive(dependencies(cls.packages["qkscope-server"],
                                            cls.packages["qkscope-client"]))
        cls.root = cls.work / "root"
        cls.root.mkdir()
        run("tar", "-C", cls.root, "-xf", archive)
        cls.machine = Machine(cls.root,
                              (os.environ["QKSCOPE_DEMO_MODEL"], MODEL))
        cls.addClassCleanup(cls.machine.stop)
        step("boot")
        cls.machine.boot()
        step("booted")

    @classmethod
    def inside(cls, *command, **more):
        return cls.machine.run(*command, **more)

    @classmethod
    def install(cls, packages):
        files = []
        for name in ("qkscope-server", "qkscope-client"):
            shutil.copy(packages[name], cls.root / "root")
            files.append(f"/root/{packages[name].name}")
        return cls.inside("dpkg", "--force-confdef", "--install", *files)

    def unit(self):
        return self.machine.show(UNIT)

    def serves(self):
        health = self.inside("qkctl", "health", "--model", "smollm2",
                             check=False)
        return health.returncode == 0

    def configure(self, text):
        (self.root / CONFIG).write_text(text, "utf-8")

    def end_with(self, kill):
        """Ends the server's process, and waits for another that serves."""
        before = self.unit()
        began = time.monotonic()
        kill(before["MainPID"])
        wait_until(lambda: self.unit()["MainPID"] not in
                   (before["MainPID"], "0"), "a new process")
        wait_until(lambda: self.unit()["ActiveState"] == "active", "ready")
        self.assertTrue(self.serves())
        self.assertEqual(int(self.unit()["NRestarts"]),
                         int(before["NRestarts"]) + 1)
        return time.monotonic() - began


class PackageTest(PackageCase):
    """One machine's life; each test goes on from the one before."""

    def test_1_lintian(self):
        result = run("lintian", "--fail-on", "error,warning",
                     *self.packages.values(), check=False,
                     stderr=subprocess.STDOUT)
        self.assertEqual(result.returncode, 0, result.stdout)
        step("lintian")

    def test_2_the_library_of_the_package(self):
        """tests/deploy/install_check.py builds with what a prefix has."""
        tree = self.work / "dev"
        run("dpkg-deb", "--extract", self.packages["libqkscope-dev"], tree)
        (pc,) = tree.glob("usr/lib/*/pkgconfig/qkscope.pc")
        include, library = f"{tree}/usr/include", f"{tree}/usr/lib"
        flags = run("pkg-config", f"--define-variable=prefix={tree}/usr",
                    "--cflags", "--libs", pc).split()
        self.assertLessEqual({f"-I{include}", f"-L{library}", "-lqkscope"},
                             {*flags})
        self.assertTrue(
            pathlib.Path(include, "qkscope/analysis_client.h").is_file())
        self.assertTrue(pathlib.Path(library, "libqkscope.a").is_file())
        self.assertIn("\nprefix=/usr\n", "\n" + pc.read_text("utf-8"))
        # The target names files of the tree; CMake looks whether they exist.
        program = self.work / "program"
        program.mkdir()
        (program / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\n"
            "project(program LANGUAGES CXX)\n"
            "find_package(qkscope REQUIRED)\n"
            "get_target_property(file qkscope::client LOCATION)\n"
            "message(NOTICE ${file})\n", "utf-8")
        said = run("cmake", "-S", program, "-B", program / "build", "-G",
                   "Ninja", f"-DCMAKE_PREFIX_PATH={tree}/usr",
                   stderr=subprocess.STDOUT)
        self.assertIn(f"{library}/libqkscope.a\n", said)
        step("library")

    def test_3_is_installed_but_not_started(self):
        self.install(self.packages)
        unit = self.unit()
        self.assertEqual((unit["ActiveState"], unit["UnitFileState"]),
                         ("inactive", "disabled"))
        self.assertIn("qkscope", self.inside("getent", "passwd", "qkscope"))
        # No model: that is what the administrator is to say.
        check = self.inside("qkscoped", "--config", f"/{CONFIG}",
                            "--check-config", check=False)
        self.assertEqual(check.returncode, EX_CONFIG, check.stdout)
        self.assertIn("models: there are none", check.stdout)
        for package, program in (("qkscope-server", "qkscoped"),
                                 ("qkscope-client", "qkctl")):
            self.assertEqual(sbom_faults(
                self.root / "usr/share/doc" / package / "qkscope.spdx.json",
                self.root / "usr/bin" / program), [])
        for page in ("man8/qkscoped.8", "man5/qkscoped.conf.5",
                     "man1/qkctl.1"):
            self.assertTrue(
                (self.root / f"usr/share/man/{page}.gz").is_file())
        step("installed")

    def test_4_starts_and_serves(self):
        default = (self.root / CONFIG).read_text("utf-8")
        self.configure(default + MODELS + "log_file: "
                       '"/var/log/qkscope/qkscoped.log"\n')
        self.inside("systemctl", "enable", "--now", UNIT)
        self.assertTrue(self.serves())
        self.assertIn("smollm2", self.inside("qkctl", "models"))
        lines = [json.loads(line) for line in self.inside(
            "qkctl", "analyze", "--prompt", "The city of Paris is in", "--arm",
            "clean", "--arm", "top_k:1", "--json").splitlines()]
        layers = [line["layer"] for line in lines if "layer" in line]
        self.assertEqual(len(layers), 30 * 3 * 2)  # Q, K, V of two arms
        self.assertIn("finished", lines[-1])
        process = pathlib.Path("/proc") / self.host_pid() / "status"
        uids = [line.split()[1:] for line in process.read_text().splitlines()
                if line.startswith("Uid:")][0]
        self.assertNotIn("0", uids)
        step("serves")

    def host_pid(self):
        """Returns the main process's id outside the machine."""
        inside = self.unit()["MainPID"]
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            for line in text.splitlines():
                if line.startswith("NSpid:") and line.split()[2:] == [inside]:
                    if "Name:\tqkscoped\n" in text:
                        return status.parent.name
        raise AssertionError("no such process")

    def test_5_users_file_of_its_group(self):
        """What docs/operating.md says about files that hold secrets."""
        self.configure((self.root / CONFIG).read_text("utf-8")
                       + 'users_file: "/etc/qkscope/users.conf"\n')
        self.inside("install", "-m", "0640", "-g", "qkscope", "/dev/null",
                    "/etc/qkscope/users.conf")
        token = self.inside("qkctl", "user", "add", "ada", "--users-file",
                            "/etc/qkscope/users.conf",
                            stderr=subprocess.DEVNULL)
        self.inside("systemctl", "restart", UNIT)
        self.assertEqual(self.inside("qkctl", "models", check=False).returncode,
                         12)
        (self.root / "root/ada.token").write_text(token, "utf-8")
        self.assertIn("smollm2", self.inside(
            "qkctl", "--token-file", "/root/ada.token", "models"))
        self.configure((self.root / CONFIG).read_text("utf-8").replace(
            "\nusers_file:", "\n# users_file:"))
        self.inside("systemctl", "restart", UNIT)
        step("users")

    def test_6_reload_opens_the_log_again(self):
        # systemd links /var/log/qkscope to this folder.
        log = self.root / "var/log/private/qkscope/qkscoped.log"
        before = self.unit()
        log.rename(log.with_suffix(".1"))
        self.inside("systemctl", "reload", UNIT)
        wait_until(log.exists, "a new log file")
        self.assertTrue(self.serves())
        self.assertEqual(self.unit()["MainPID"], before["MainPID"])
        step("reloaded")

    def test_7_kill_is_survived(self):
        seconds = self.end_with(
            lambda pid: self.inside("sh", "-c", f"kill -KILL {pid}"))
        step(f"killed, and ready again after {seconds:.1f} s")

    def test_8_stop_lets_calls_finish(self):
        with subprocess.Popen(
                self.machine.command(
                    "qkctl", "generate", "--prompt", "The city of Paris is in",
                    "--max-new-tokens", "64", "--ignore-eos", "--json"),
                stdout=subprocess.PIPE, encoding="utf-8") as client:
            self.addCleanup(client.kill)
            first = client.stdout.readline()
            self.assertTrue(first)
            self.inside("systemctl", "stop", UNIT)
            rest = client.stdout.read()
            self.assertEqual(client.wait(), 0)
        self.assertEqual((first + rest).count('"token"'), 64)
        unit = self.unit()
        self.assertEqual((unit["ActiveState"], unit["Result"],
                          unit["ExecMainStatus"]), ("inactive", "success", "0"))
        step("stopped")

    def test_9a_a_bad_configuration_is_not_tried_again(self):
        good = (self.root / CONFIG).read_text("utf-8")
        self.configure(good + "no_such_setting: 1\n")
        start = self.inside("systemctl", "start", UNIT, check=False)
        self.assertNotEqual(start.returncode, 0)
        unit = self.unit()
        self.assertEqual((unit["ActiveState"], unit["ExecMainStatus"],
                          unit["NRestarts"]), ("failed", str(EX_CONFIG), "0"))
        self.configure(good)
        # These were many starts within five minutes.
        self.inside("systemctl", "reset-failed", UNIT)
        self.inside("systemctl", "start", UNIT)
        self.assertTrue(self.serves())
        step("bad configuration")

    def test_9b_the_unit_is_locked_down(self):
        for text in ("", "the drop-in for CUDA"):
            if text:
                folder = "/etc/systemd/system/qkscoped.service.d"
                self.inside("mkdir", folder)
                self.inside("cp", "/usr/share/doc/qkscope-server/examples/"
                            "cuda.conf", folder)
                self.inside("systemctl", "daemon-reload")
                self.inside("systemctl", "restart", UNIT)
                self.assertEqual(self.unit()["PrivateDevices"], "no")
                self.assertEqual(self.unit()["DevicePolicy"], "closed")
                self.assertTrue(self.serves())
            said = self.inside("systemd-analyze", "verify",
                               f"/lib/systemd/system/{UNIT}", check=False)
            # The machine has no `man` that could find the pages.
            self.assertEqual([line for line in said.stdout.splitlines()
                              if "'man " not in line], [])
            score = self.inside("systemd-analyze", "security", "--no-pager",
                                "--threshold=20", UNIT)
            step(score.strip().splitlines()[-1])

    def test_9c_remove_keeps_and_purge_does_not(self):
        config = (self.root / CONFIG).read_text("utf-8")
        self.inside("dpkg", "--remove", "qkscope-server", "qkscope-client")
        self.assertEqual((self.root / CONFIG).read_text("utf-8"), config)
        state = self.root / "var/lib/private/qkscope"
        self.assertTrue((state / "spool").is_dir())
        self.assertFalse((self.root / "usr/bin/qkscoped").exists())
        self.assertEqual(self.unit()["ActiveState"], "inactive")
        self.inside("rm", "-r", "/etc/systemd/system/qkscoped.service.d")
        self.inside("dpkg", "--purge", "qkscope-server", "qkscope-client")
        left = self.inside(
            "find", "/etc", "/lib", "/usr", "/var", "/run", "-xdev",
            "(", "-iname", "*qkscope*", "-o", "-iname", "*qkctl*", ")",
            "-not", "-path", "/var/lib/dpkg/*")
        self.assertEqual(left, "")
        step("purged")


if __name__ == "__main__":
    end_on_sigterm()
    # What a failed start says is in the machine's journal.
    unittest.main(failfast=True)
