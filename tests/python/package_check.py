"""Builds the wheel and the source distribution of client/python, checks their
types and what they hold, and installs both in fresh virtual environments below
build/python-package. The registry of PyPI is needed.
"""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "client" / "python"
OUT = ROOT / "build" / "python-package"
TOOLS = ["build==1.6.1", "hatchling==1.33.0", "mypy==2.4.1",
         "types-protobuf==7.35.1.20260906"]


def run(*command, **options):
    return subprocess.run([*map(str, command)], check=True,
                          stdout=subprocess.PIPE, encoding="utf-8",
                          **options).stdout


def make_venv(name, *packages):
    """Returns the Python of a fresh environment with the packages."""
    folder = OUT / name
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check",
        "install", *packages)
    return python


def sources():
    """The package's files, as a wheel names them."""
    return {path.relative_to(PACKAGE).as_posix()
            for path in (PACKAGE / "qkscope").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


class PackageTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        shutil.rmtree(OUT / "dist", ignore_errors=True)
        cls.tools = make_venv("tools", *TOOLS, "numpy", "grpcio", "protobuf",
                              "rich")
        run(cls.tools, "-m", "build", "--no-isolation", "--outdir",
            OUT / "dist", PACKAGE)
        (cls.wheel,) = (OUT / "dist").glob("*.whl")
        (cls.sdist,) = (OUT / "dist").glob("*.tar.gz")
        cls.version = run(cls.tools, "-c", "import runpy; print(runpy.run_path"
                          f"({str(PACKAGE / 'qkscope' / '_version.py')!r})"
                          "['__version__'])").strip()

    def test_the_wheel_is_pure_and_whole(self):
        self.assertEqual(self.wheel.name,
                         f"qkscope-{self.version}-py3-none-any.whl")
        with zipfile.ZipFile(self.wheel) as archive:
            files = {name for name in archive.namelist()
                     if ".dist-info/" not in name}
        self.assertEqual(files, sources())
        self.assertIn("qkscope/py.typed", files)

    def test_the_source_distribution_is_whole(self):
        with tarfile.open(self.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        self.assertLessEqual(sources() | {"pyproject.toml", "README.md"},
                             names)

    def test_they_install(self):
        for name, file in (("wheel", self.wheel), ("sdist", self.sdist)):
            with self.subTest(name):
                python = make_venv(name, file)
                self.assertEqual(
                    run(python, "-m", "qkscope", "--version",
                        cwd=OUT).strip(), self.version)
                listed = run(python, "-m", "pip", "list", "--format=freeze")
                self.assertNotIn("matplotlib", listed)

    def test_types(self):
        modules = sorted(path for folder in (".", "evals", "lens")
                         for path in (PACKAGE / "qkscope" / folder).glob("*.py"))
        result = subprocess.run(
            [self.tools, "-m", "mypy", "--config-file",
             PACKAGE / "pyproject.toml", "--cache-dir", OUT / "mypy",
             "--follow-imports=silent", *modules], check=False, cwd=PACKAGE,
            capture_output=True, encoding="utf-8")
        self.assertEqual(result.returncode, 0, result.stdout)


if __name__ == "__main__":
    unittest.main()
