# row: cmake --install; find_package, pkg-config, man pages | run | quick | 35
"""Installs into a clean prefix and builds a small program with it."""

import os
import re
import unittest

from programs import ROOT, Server, end_on_sigterm, work_folder
from rows import build_folder, need, run, step

# The ten lines of docs/using.md.
USING = (ROOT / "docs" / "using.md").read_text("utf-8")
PROTO = ROOT / "proto"


def block(language):
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", USING, re.M | re.S)
    return text


class InstallTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        need("cmake", "ninja", "pkg-config", "g++", "protoc")
        cls.build = build_folder()
        cls.work = work_folder(cls)
        # Installed in one place, used in another.
        cls.prefix = cls.work / "prefix"
        cls.first = cls.work / "first"
        run("cmake", "--install", cls.build, "--prefix", cls.first)
        cls.unit = (cls.first / "lib/systemd/system/qkscoped.service"
                    ).read_text("utf-8")
        cls.first.rename(cls.prefix)
        cls.program = cls.work / "program"
        cls.program.mkdir()
        (cls.program / "main.cc").write_text(block("cpp"), "utf-8")
        (cls.program / "CMakeLists.txt").write_text(block("cmake"), "utf-8")
        # The server that was installed.
        cls.server = Server(cls.work, "--model",
                            f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}",
                            program=cls.prefix / "bin/qkscoped")
        cls.addClassCleanup(cls.server.stop)
        step("installed")

    @classmethod
    def check_program(cls, program):
        out = run(program, env={**os.environ,
                                "QKSCOPE_SERVER": cls.server.listen})
        assert out == "smollm2\n", out

    def pkg_config(self, *arguments, **more):
        return run("pkg-config", *arguments, **more, env={
            **os.environ, "PKG_CONFIG_PATH": f"{self.prefix}/lib/pkgconfig"})

    def configure(self, folder, *arguments, **more):
        return run("cmake", "-S", self.program, "-B", folder, "-G", "Ninja",
                   f"-DCMAKE_PREFIX_PATH={self.prefix}", *arguments, **more)

    def test_find_package(self):
        folder = self.work / "cmake"
        self.configure(folder)
        run("cmake", "--build", folder)
        self.check_program(folder / "program")
        # What it was built from is the prefix, nothing of the tree.
        known = run("ninja", "-C", folder, "-t", "deps")
        self.assertIn(f"{self.prefix}/include/qkscope/analysis_client.h", known)
        self.assertNotIn(str(ROOT / "client"), known)
        self.assertNotIn(str(self.build / "proto"), known)
        step("find_package")

    def test_another_version_is_refused(self):
        version = run(self.prefix / "bin/qkctl", "--version").split()[1]
        major, minor, _ = version.split(".")
        text = block("cmake")
        for wanted, fits in ((f"{major}.{minor}", True),
                             (f"{major}.{int(minor) + 1}", False),
                             (f"{int(major) + 1}.0", False)):
            source = self.work / f"version-{wanted}"
            source.mkdir()
            (source / "main.cc").touch()
            (source / "CMakeLists.txt").write_text(
                re.sub(r"find_package\(qkscope [\d.]*",
                       f"find_package(qkscope {wanted} ", text), "utf-8")
            result = run("cmake", "-S", source, "-B", source / "build", "-G",
                         "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}",
                         check=False, stderr=-2)
            self.assertEqual(result.returncode == 0, fits, result.stdout)
        self.assertEqual(self.pkg_config("--modversion", "qkscope").strip(),
                         version)
        step("versions")

    def test_pkg_config(self):
        program = self.work / "by_pkg_config"
        flags = self.pkg_config("--cflags", "--libs", "qkscope").split()
        # Older C++ than the library's own, too.
        run("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror",
            self.program / "main.cc", "-o", program, *flags)
        self.check_program(program)
        step("pkg-config")

    def test_headers_stand_alone(self):
        flags = self.pkg_config("--cflags", "qkscope").split()
        headers = sorted((self.prefix / "include/qkscope").glob("*.h"))
        self.assertEqual([header.name for header in headers],
                         ["analysis_client.h", "analysis_result.h",
                          "cancellation.h"])
        for header in headers:
            run("g++", "-std=c++17", "-fsyntax-only", "-x", "c++", header,
                *flags)
        step("headers")

    def test_the_unit_names_what_is_installed(self):
        self.assertIn(f"\nExecStart={self.first}/bin/qkscoped --config "
                      f"{self.first}/etc/qkscope/qkscoped.conf\n", self.unit)

    def test_a_configuration_is_kept(self):
        other = self.work / "again"
        for text in ("the administrator's\n", None):
            run("cmake", "--install", self.build, "--prefix", other,
                "--component", "server")
            config = other / "etc/qkscope/qkscoped.conf"
            if text is not None:
                config.write_text(text, "utf-8")
        self.assertEqual(config.read_text("utf-8"), "the administrator's\n")

    def test_components(self):
        found = {}
        for name in ("server", "client", "dev"):
            folder = self.work / name
            run("cmake", "--install", self.build, "--prefix", folder,
                "--component", name)
            found[name] = {file.relative_to(folder)
                           for file in folder.rglob("*") if file.is_file()}
        everything = {file.relative_to(self.prefix)
                      for file in self.prefix.rglob("*") if file.is_file()}
        self.assertEqual(sum(map(len, found.values())), len(everything))
        self.assertEqual(set().union(*found.values()), everything)
        self.assertEqual({file.name for file in everything
                          if file.parent.name == "bin"}, {"qkscoped", "qkctl"})


class ManPagesTest(unittest.TestCase):
    """The pages have all that --help and the configuration's fields have."""

    @classmethod
    def setUpClass(cls):
        cls.build = build_folder()

    def page(self, name):
        text = (self.build / "deploy/man" / name).read_text("utf-8")
        return text.replace("\\-", "-")

    def test_every_flag(self):
        qkscoped = run(self.build / "bin/qkscoped", "--help")
        qkctl = run(self.build / "bin/qkctl", "--help")
        commands = re.findall(r"^  ([a-z-]+) +[A-Z]", qkctl.partition(
            "Common flags")[0], re.M)
        self.assertGreaterEqual(len(commands), 18)
        for name in commands:
            qkctl += run(self.build / "bin/qkctl", name, "--help")
        for text, page in ((qkscoped, self.page("qkscoped.8")),
                           (qkctl, self.page("qkctl.1"))):
            flags = set(re.findall(r"^  (--[a-z0-9-]+)", text, re.M))
            self.assertGreater(len(flags), 15)
            listed = set(re.findall(r"^\.TP\n\\fB(--[a-z0-9-]+)\\fR", page,
                                    re.M))
            self.assertEqual(listed, flags)
        for name in commands:
            self.assertIn(f".SH {name.upper()}\n", self.page("qkctl.1"))

    def test_every_setting(self):
        """protoc's reading of config.proto is the reference."""
        descriptors = run(
            "protoc", "-I", PROTO, "--descriptor_set_out=/dev/stdout",
            PROTO / "qkscope/v1/config.proto", encoding=None)
        text = run("protoc", "--decode=google.protobuf.FileDescriptorSet",
                   "google/protobuf/descriptor.proto", "-I/usr/include",
                   stdin=None, encoding=None, input=descriptors).decode()
        names = set(re.findall(
            r'^ +(?:field|value) \{\n +name: "(\w+)"', text, re.M))
        self.assertGreater(len(names), 60)
        page = self.page("qkscoped.conf.5")
        listed = set(re.findall(r"^\.TP\n\\fB(\w+)\\fR", page, re.M))
        # Users stand in a file of their own, which is described, too.
        self.assertEqual(listed, names)


if __name__ == "__main__":
    end_on_sigterm()
    unittest.main()
