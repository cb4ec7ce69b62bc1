"""The committed results: whole, with every manifest, and the tables beside them
are theirs."""

import gzip
import pathlib
import re
import tempfile
import unittest

from qkscope.study import report, results
from qkscope.study.store import Store

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "studies"
NAMES = ("contextual_vs_parametric", "massive_values", "quantization",
         "rope_origin")


class CommittedResultsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def open(self, name):
        file = self.folder / f"{name}.sqlite"
        file.write_bytes(gzip.decompress(
            (DOCS / name / "results.sqlite.gz").read_bytes()))
        store = Store.open(file)
        self.addCleanup(store.close)
        return store

    def test_they_are_whole(self):
        for name in NAMES:
            store = self.open(name)
            self.assertEqual(store.study.name, name)
            done, planned = store.counts()
            self.assertEqual(done, planned)
            for unit in store.units():
                manifest = store.manifest(unit.key)
                self.assertEqual(manifest["model"], unit.model)
                self.assertRegex(manifest["weights_sha256"], "^[0-9a-f]{64}$")
                self.assertTrue(manifest["token_ids"])

    def test_the_tables_beside_them(self):
        for study in ("contextual_vs_parametric", "quantization"):
            store = self.open(study)
            for name in ("scores", "tests"):
                self.assertEqual(report.tables(store)[name], (
                    DOCS / study / f"{name}.csv").read_text())

    def test_the_numbers_of_the_page(self):
        text = (DOCS / "README.md").read_text()
        for row in results.score_rows(self.open("contextual_vs_parametric")):
            if row.scorer != "strict":
                continue
            (line,) = re.findall(rf"^\| {row.model}, {row.task} \|.*", text,
                                 re.M)
            self.assertIn(f"{row.accuracy.share:.0%}".replace("%", " %"), line)
        section = text.split("## quantization\n")[1].split("\n## ")[0]
        rows = [row for row in results.score_rows(self.open("quantization"))
                if row.scorer == "strict"]
        tasks = re.findall(r"^\| model \| (.*) \|$", section,
                           re.M)[0].split(" | ")
        self.assertEqual(len(rows), 8 * len(tasks))
        for row in rows:
            (line,) = re.findall(rf"^\| {row.model}\b[^|]* \| (.*) \|$",
                                 section, re.M)
            self.assertEqual(line.split(" | ")[tasks.index(row.task)],
                             f"{row.accuracy.share:.0%}".replace("%", " %"))
        for name in ("massive_values", "rope_origin"):
            store = self.open(name)
            section = text.split(f"## {name}\n")[1].split("\n## ")[0]
            for total in results.totals(results.layer_means(store)):
                if total.arm != "clean":
                    continue
                (line,) = re.findall(rf"^\| {total.model} .*", section, re.M)
                count = (f"{total.massive_count:.0f}"
                         if total.massive_count > 10
                         else f"{total.massive_count:.1f}")
                self.assertRegex(line, rf"\b{re.escape(count)}\b")

    def test_they_are_small(self):
        self.assertLess(sum(file.stat().st_size for file in DOCS.rglob("*")
                            if file.is_file()), 5 << 19)


if __name__ == "__main__":
    unittest.main()
