"""Rules of client/python: its generated code, its version, what it imports."""

import ast
import pathlib
import re
import shutil
import tempfile
import unittest

import python_gencode
from python_gencode import OUT, ROOT

PACKAGE = ROOT / OUT / "qkscope"
# What the core may import without an extra.
CORE = {"google", "grpc", "numpy", "rich", "qkscope", "__future__"}


def imports(path):
    """Returns the top-level packages that a file imports when it is loaded."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def calls(path):
    """Returns the names that a file imports or calls anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names.add(node.func.id)
    return names


class PackageTest(unittest.TestCase):

    def test_the_generated_code_is_that_of_proto(self):
        self.assertEqual(python_gencode.problems(), [])

    def test_other_code_is_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            shutil.copytree(PACKAGE / "v1", root / OUT / "qkscope" / "v1")
            changed = root / OUT / "qkscope" / "v1" / "error_pb2.py"
            changed.write_text(changed.read_text() + "\n")
            (changed.parent / "old_pb2.py").write_text("")
            (changed.parent / "spec_pb2.pyi").unlink()
            found = python_gencode.problems(root)
        self.assertEqual([line.split(" ")[0].rpartition("/")[2]
                          for line in found],
                         ["error_pb2.py", "old_pb2.py", "spec_pb2.pyi"])

    def test_the_version_is_the_servers(self):
        cmake = (ROOT / "CMakeLists.txt").read_text()
        version = re.search(r"project\(qkscope VERSION (\S+)", cmake)[1]
        self.assertEqual(
            re.search(r'__version__ = "(.*)"',
                      (PACKAGE / "_version.py").read_text())[1], version)

    def test_the_core_needs_no_extra(self):
        import sys
        for path in PACKAGE.glob("*.py"):
            with self.subTest(path.name):
                extra = imports(path) - CORE - set(sys.stdlib_module_names)
                self.assertEqual(extra, set())

    def test_nothing_is_pickled_or_evaluated(self):
        for path in PACKAGE.rglob("*.py"):
            with self.subTest(path.name):
                self.assertFalse(
                    {"pickle", "marshal", "shelve", "dill", "cloudpickle",
                     "eval", "exec"} & calls(path))


if __name__ == "__main__":
    unittest.main()
