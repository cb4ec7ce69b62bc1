"""The file of results: what goes in comes out, and files that are somebody
else's, cut off or damaged end with one sentence."""

import contextlib
import dataclasses
import json
import pathlib
import random
import sqlite3
import tempfile
import unittest

import numpy as np

from qkscope.study import report, results, spec
from qkscope.study.errors import StudyError
from qkscope.study.records import (Answer, ComparisonRow, LayerRow, Outcome,
                                   Unit)
from qkscope.study.store import Store
from qkscope.study.tasks import Item

STUDY = spec.parse("""
name = "s"
kind = "tasks"
[arms]
clean = "clean"
x = "top_k:1"
[[models]]
name = "m"
[[tasks]]
name = "sports"
count = 4
min_new = 1
""".replace("min_new = 1\n", ""))
INFO = {"architecture": "llama", "weights_sha256": "a", "tokenizer_sha256": "b",
        "weights_dtype": "F32", "compute_type": "f32", "parameters": 1,
        "backend": "cpu", "chat_format": "none", "rope": [],
        "layers": [{"rope": None}]}


def unit(i):
    return Unit(f"key{i}", "m", "sports", 0,
                Item(f"i{i}", f"Question {i}?", "yes", {"n": i}),
                {"text": f"Question {i}?"})


def outcome(i, yes="Yes."):
    norms = np.full((2, 3), 0.5 + i, "<f2")
    return Outcome(
        0.5, 7 + i, {"token_ids": list(range(i)), "model": "m"},
        [Answer("clean", yes, 2, "stop_token", -0.5, None, 0),
         Answer("x", "No \N{SNOWMAN}", 3, "length", None, -1.5, 1)],
        [LayerRow("clean", "hook_rot_q", 0, 3, 7.5, 9.0, 2, 0.5, 1.0, False,
                  (norms.shape, norms.tobytes())),
         LayerRow("x", "hook_rot_q", 0, 0, None, None, None, None, None, True,
                  None)],
        [ComparisonRow("x", 0.25, 3, -2.0)])


class StoreCase(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "r.sqlite"

    def fill(self, count=4, done=3):
        units = [unit(i) for i in range(count)]
        with self.made(STUDY, units) as store:
            for i in range(done):
                store.add(units[i], outcome(i))

    def made(self, study, units, **about):
        Store.create(self.path, study, {"m": INFO}, units,
                     {"qkscope": "1", **about})
        return Store.resume(self.path, study)

    def error(self, path=None):
        with self.assertRaises(StudyError) as caught:
            with Store.open(path or self.path) as store, store.understood():
                report.page(store)
                for key, _, _ in store.results():
                    store.manifest(key)
        message = str(caught.exception)
        self.assertIn(str(path or self.path), message)
        self.assertNotIn("\n", message)
        self.assertLess(len(message), 400)
        return message


class StoreTest(StoreCase):

    def test_what_goes_in_comes_out(self):
        self.fill()
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()),
                         ["r.sqlite"])
        with Store.open(self.path) as store:
            self.assertEqual(store.study, STUDY)
            self.assertEqual(store.counts(), (3, 4))
            self.assertEqual(list(store.units()), [unit(i) for i in range(4)])
            self.assertEqual(list(store.units(pending=True)), [unit(3)])
            self.assertEqual(store.models(), {"m": INFO})
            self.assertEqual(store.about(), {"qkscope": "1"})
            self.assertEqual(list(store.answers()), [
                (f"key{i}", a) for i in range(3) for a in outcome(i).answers])
            self.assertEqual(list(store.layers()), [
                (f"key{i}", a) for i in range(3) for a in outcome(i).layers])
            self.assertEqual(list(store.comparisons()), [
                (f"key{i}", a) for i in range(3)
                for a in outcome(i).comparisons])
            for i in range(3):
                self.assertEqual(store.manifest(f"key{i}"), outcome(i).manifest)
            self.assertEqual(list(store.results()),
                             [(f"key{i}", 0.5, 7 + i) for i in range(3)])

    def test_equal_manifests_take_little(self):
        units = [unit(i) for i in range(200)]
        with self.made(STUDY, units) as store:
            text = " ".join(str(i * i) for i in range(2000))
            for i, one in enumerate(units):
                store.add(one, dataclasses.replace(
                    outcome(0), manifest={"same": text, "i": i}, layers=[]))
        self.assertLess(self.path.stat().st_size, 200 * 800)

    def test_a_unit_is_added_once(self):
        self.fill()
        with Store.open(self.path) as store:
            with self.assertRaises(StudyError):
                store.add(unit(0), outcome(0))
            self.assertEqual(store.counts(), (3, 4))

    def test_an_outcome_that_cannot_be_written_leaves_nothing(self):
        self.fill(done=0)
        with Store.open(self.path) as store:
            twice = dataclasses.replace(
                outcome(0), comparisons=outcome(0).comparisons * 2)
            with self.assertRaises(StudyError):
                store.add(unit(0), twice)
            self.assertEqual(store.counts(), (0, 4))
            self.assertEqual(list(store.answers()), [])

    def test_tables(self):
        self.fill()
        with Store.open(self.path) as store:
            rows = {(row.arm, row.scorer): row
                    for row in results.score_rows(store)}
            self.assertEqual(rows["clean", "strict"].accuracy.right, 3)
            self.assertEqual(rows["x", "strict"].accuracy.right, 0)
            self.assertLessEqual(
                abs(rows["clean", "strict"].perplexity - np.exp(0.5)), 1e-12)
            self.assertIsNone(rows["x", "strict"].perplexity)
            tests = results.test_rows(store)
            self.assertEqual([(t.first, t.second, t.test.lost) for t in tests],
                             [("clean", "x", 3)] * 2)
            (norms,) = results.mean_norms(store).values()
            np.testing.assert_array_equal(norms[0], np.full((2, 3), 1.5))
            (clean, other) = results.layer_means(store)
            self.assertEqual((clean.massive_count, clean.top_dims),
                             (3, {2: 3}))
            self.assertEqual((other.ratio, other.low_frequency_share),
                             (None, None))

    def test_a_seed_counts_within_its_item(self):
        study = dataclasses.replace(STUDY, seeds=(1, 2), temperature=1.0)
        units = [dataclasses.replace(unit(i), seed=seed, key=f"{i}.{seed}")
                 for i in range(3) for seed in (1, 2)]
        with self.made(study, units) as store:
            for i, one in enumerate(units):
                store.add(one, outcome(0, "Yes" if i in (0, 1, 2) else "No"))
            row = results.score_rows(store)[1]
            self.assertEqual((row.accuracy.right, row.accuracy.items), (1.5, 3))


class OtherFilesTest(StoreCase):

    def test_another_study(self):
        self.fill()
        for change, what in [({"lambda_": 4.0}, "its lambda differs"),
                             ({"seeds": (1,)}, "its seeds differs")]:
            with self.assertRaisesRegex(
                    StudyError, f"results of another study, 's' .{what}"):
                Store.resume(self.path, dataclasses.replace(STUDY, **change))

    def test_no_results(self):
        self.assertIn("does not exist", self.error())
        self.path.write_bytes(b"")
        self.error()
        self.path.write_text("name = 'study'\n" * 100)
        self.assertIn("is no SQLite database", self.error())
        self.path.unlink()
        with contextlib.closing(sqlite3.connect(self.path)) as other:
            other.execute("CREATE TABLE a (b)")
        self.assertIn("not a file of results", self.error())
        self.assertIn("does not exist", self.error(self.folder))
        with self.assertRaisesRegex(StudyError, "there is no folder"):
            Store.create(self.folder / "a" / "b.sqlite", STUDY, {}, [], {})

    def test_files_that_are_cut_off(self):
        self.fill()
        whole = self.path.read_bytes()
        for length in range(100, len(whole), 1777):
            self.path.write_bytes(whole[:length])
            with self.subTest(length=length):
                self.error()

    def test_bytes_that_are_not_as_they_were(self):
        self.fill(count=40, done=40)
        whole = self.path.read_bytes()
        numbers = random.Random(1)
        damaged = 0
        for _ in range(80):
            data = bytearray(whole)
            begin = numbers.randrange(len(data))
            for i in range(begin, min(len(data), begin + 64)):
                data[i] = numbers.randrange(256)
            self.path.write_bytes(data)
            for extra in ("-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + extra).unlink(
                    missing_ok=True)
            try:
                with Store.open(self.path) as store, store.understood():
                    report.page(store)
                    for key, _, _ in store.results():
                        store.manifest(key)
            except StudyError as error:
                self.assertNotIn("\n", str(error))
                damaged += 1
        self.assertGreater(damaged, 30)

    def change(self, statement, *values):
        self.path.unlink(missing_ok=True)
        self.fill()
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            database.execute(statement, values)
            database.commit()

    def test_tables_that_are_not_as_written(self):
        for statement, values, message in [
                ("UPDATE meta SET value = '2' WHERE key = 'version'", (),
                 "has version '2' of the results"),
                ("UPDATE meta SET value = '{' WHERE key = 'study'", (),
                 "the study in it cannot be read"),
                ("UPDATE meta SET value = '[]' WHERE key = 'study'", (),
                 "the study in it cannot be read"),
                ("UPDATE meta SET value = replace(value, 'sports', 'spurts')",
                 (), "name must be aqua"),
                ("UPDATE units SET content = ? WHERE place = 1", (b"abc",),
                 "compressed data cannot be read"),
                ("UPDATE results SET manifest = ? WHERE unit = 1", (b"abc",),
                 "compressed data cannot be read"),
                ("UPDATE units SET task = 'imdb'", (),
                 "units names 'imdb', which is not in its study"),
                ("UPDATE units SET model = 'n'", (), "units names 'n'"),
                ("UPDATE norms SET shape = '[2, 4]'", (),
                 "do not have their shape"),
                ("UPDATE norms SET shape = '7'", (), "holds a value that no study"),
                ("UPDATE models SET info = '{'", (), "model m cannot be read"),
                ("UPDATE models SET info = '{}'", (),
                 "holds a value that no study writes: \"'architecture'\""),
                ("UPDATE answers SET arm = 'other' WHERE arm = 'x'", (),
                 "answers names 'other'"),
                ("CREATE TABLE more (a)", (), "has other tables"),
                ("CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM "
                 "units; END", (), "has other tables"),
                ("DROP TABLE norms", (), "has other tables")]:
            with self.subTest(statement=statement):
                self.change(statement, *values)
                self.assertIn(message, self.error())

    def test_text_of_the_results_stays_text(self):
        evil = "</script><script>alert(1)</script><!-- \u2028 @DATA@"
        with self.made(dataclasses.replace(STUDY, title=evil), [unit(0)],
                       scipy=evil) as store:
            store.add(unit(0), outcome(0, evil))
            page = report.page(store)
        self.assertEqual(page.count("<script"), 2)
        self.assertEqual(page.count("</script>"), 2)
        inside = page.split('id="data">')[1].split("</script>")[0]
        data = json.loads(inside)
        self.assertEqual(data["answers"][0]["arms"][0]["text"], evil)
        self.assertEqual(data["title"], evil)


if __name__ == "__main__":
    unittest.main()
