"""Tests that the tree keeps the include rules, and that a breach is noticed."""

import pathlib
import shutil
import tempfile
import unittest

import include_rules

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The small tree's folders. Every include in them is from one of them.
COPIED = ("engine/types", "engine/base", "engine/backend")

TABLE = """# Folders

## engine/

| folder | one sentence | may include |
|---|---|---|
| `engine/backend/` | the ops | `engine/types/`, `engine/base/` |
| `engine/types/` | plain data | `engine/base/` |
| `engine/base/` | small things | nothing |
"""
BACKEND_ROW = 7  # its line in TABLE


class RealTree(unittest.TestCase):
    def test_no_include_breaks_a_rule(self):
        rules = include_rules.read_rules(ROOT)
        self.assertEqual([], include_rules.violations(ROOT, rules))

    def test_the_rows_are_the_folders(self):
        folders = {
            path.relative_to(ROOT).parent.as_posix() + "/"
            for top in ("server", "engine", "client")
            for path in (ROOT / top).rglob("*")
            if path.suffix in (".cc", ".h", ".cu", ".cuh")
        }
        self.assertEqual(folders, set(include_rules.read_rules(ROOT)))


class Copy(unittest.TestCase):
    """A small part of the tree, copied so that it can be broken."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "docs").mkdir()
        self.write_table(TABLE)

    def write_table(self, text):
        (self.root / "docs/folders.md").write_text(text)

    def violations(self):
        return include_rules.violations(self.root,
                                        include_rules.read_rules(self.root))

    def plant(self, name, line):
        """Writes a line at the end of a file; returns its number."""
        path = self.root / name
        text = path.read_text() + line + "\n"
        path.write_text(text)
        return len(text.splitlines())

    def assert_bad_table(self, table, message):
        self.write_table(table)
        with self.assertRaises(include_rules.BadTable) as raised:
            include_rules.read_rules(self.root)
        self.assertEqual(message, str(raised.exception))


class PlantedIncludes(Copy):
    def test_the_copy_keeps_the_rules(self):
        self.assertEqual([], self.violations())

    def test_a_forbidden_folder(self):
        line = self.plant("engine/base/half.h",
                          '#include "engine/types/spec.h"')
        self.assertEqual(
            [f"engine/base/half.h:{line}: includes engine/types/spec.h; "
             "engine/base/ may include: nothing"], self.violations())

    def test_every_way_to_write_an_include(self):
        lines = [
            self.plant("engine/types/spec.h", text)
            for text in ("#include <engine/backend/backend.h>",
                         '  #  include "engine/backend/backend.h"  // why',
                         '#include "tests/engine/test_util.h"')
        ]
        found = self.violations()
        self.assertEqual(
            [f"engine/types/spec.h:{line}" for line in lines],
            [violation.split(": ")[0] for violation in found])

    def test_a_path_that_is_not_from_the_root(self):
        line = self.plant("engine/base/half.h", '#include "../types/spec.h"')
        self.assertEqual(
            [f"engine/base/half.h:{line}: includes ../types/spec.h; a header "
             "of the project is named by its path from the root"],
            self.violations())

    def test_a_header_for_one_file_is_not_for_another(self):
        self.write_table(TABLE.replace(
            "nothing", "`engine/types/spec.h` from `engine/base/half.h`"))
        self.plant("engine/base/half.h", '#include "engine/types/spec.h"')
        self.assertEqual([], self.violations())
        line = self.plant("engine/base/check.h",
                          '#include "engine/types/spec.h"')
        self.assertEqual(
            [f"engine/base/check.h:{line}: includes engine/types/spec.h; "
             "engine/base/ may include: `engine/types/spec.h` from "
             "`engine/base/half.h`"], self.violations())

    def test_lower_is_what_stands_further_down(self):
        self.write_table(TABLE.replace("`engine/types/`, `engine/base/`",
                                       "lower").replace("nothing", "lower"))
        self.assertEqual([], self.violations())
        line = self.plant("engine/base/half.h",
                          '#include "engine/types/spec.h"')
        self.assertEqual(
            [f"engine/base/half.h:{line}: includes engine/types/spec.h; "
             "engine/base/ may include: lower"], self.violations())

    def test_cuda_outside_of_its_folder(self):
        line = self.plant("engine/backend/backend.h",
                          "#include <cuda_runtime.h>")
        launch = self.plant("engine/backend/backend.h", "k<<<1, 32>>>(x);")
        self.assertEqual(
            [f"engine/backend/backend.h:{line}: includes cuda_runtime.h; only "
             "engine/cuda/ may include CUDA's headers",
             f"engine/backend/backend.h:{launch}: launches a kernel; "
             "engine/cuda/launch.h does that"], self.violations())

    def test_a_folder_without_a_row(self):
        (self.root / "engine/new").mkdir()
        (self.root / "engine/new/file.cc").write_text("int x;\n")
        self.assertEqual(
            ["engine/new/file.cc:1: engine/new/ has no row in "
             "docs/folders.md"], self.violations())


class BadTables(Copy):
    def test_a_missing_row(self):
        rows = TABLE.splitlines(keepends=True)
        del rows[BACKEND_ROW]  # engine/types/
        self.assert_bad_table(
            "".join(rows),
            "docs/folders.md:7: engine/backend/ may include engine/types/, "
            "which has no row of its own")

    def test_a_row_for_an_unknown_folder(self):
        self.assert_bad_table(
            TABLE + "| `engine/gone/` | nowhere | nothing |\n",
            "docs/folders.md:10: there are no sources in engine/gone/")

    def test_a_row_that_names_an_unknown_file(self):
        self.assert_bad_table(
            TABLE.replace("nothing", "`engine/types/gone.h`"),
            "docs/folders.md:9: engine/base/ names engine/types/gone.h, "
            "which does not exist")

    def test_two_rows_for_a_folder(self):
        self.assert_bad_table(
            TABLE + "| `engine/base/` | again | nothing |\n",
            "docs/folders.md:10: engine/base/ has a row at line 9 already")

    def test_a_row_with_a_cell_too_few(self):
        self.assert_bad_table(TABLE.replace("| the ops ", ""),
                              "docs/folders.md:7: a row has 3 cells, not 2")

    def test_a_row_without_a_folder(self):
        self.assert_bad_table(
            TABLE.replace("`engine/backend/`", "engine/backend"),
            "docs/folders.md:7: a row begins with `FOLDER/`, not "
            "engine/backend")

    def test_a_cell_that_says_nothing(self):
        for cell in ("everything", "", "engine/base/", "`engine/base`"):
            with self.subTest(cell):
                self.assert_bad_table(
                    TABLE.replace("nothing", cell),
                    f"docs/folders.md:9: engine/base/: cannot read {cell!r}")

    def test_other_columns(self):
        self.assert_bad_table(
            TABLE.replace("may include", "may not include"),
            "docs/folders.md:5: a table begins with the columns ['folder', "
            "'one sentence', 'may include'], not ['folder', 'one sentence', "
            "'may not include']")

    def test_no_table(self):
        self.assert_bad_table("# Folders\n",
                              "docs/folders.md:1: there is no table")


if __name__ == "__main__":
    unittest.main()
