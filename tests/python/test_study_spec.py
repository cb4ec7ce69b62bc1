"""Studies as TOML: what is read, and one clear sentence for what is wrong."""

import pathlib
import tempfile
import unittest

from qkscope.study import spec
from qkscope.study.errors import StudyError

GOOD = """
name = "s"
kind = "tasks"
[[tasks]]
name = "sports"
"""


class SpecTest(unittest.TestCase):

    def test_ready_studies(self):
        self.assertEqual(list(spec.ready()), [
            "contextual_vs_parametric", "massive_values", "quantization",
            "rope_origin"])
        for name in spec.ready():
            study = spec.load(name)
            self.assertEqual(study.name, name)
            self.assertTrue(study.title)
        tasks = [task.name for task in
                 spec.load("contextual_vs_parametric").tasks]
        self.assertEqual(tasks, ["city", "passkey", "knowledge_conflict"])
        self.assertEqual(spec.load("quantization").compare, "models")

    def test_defaults(self):
        study = spec.parse(GOOD)
        self.assertEqual(study.arms, {"clean": "clean", "disrupted": "family",
                                      "control": "family"})
        self.assertEqual((study.seeds, study.temperature), ((0,), 0))
        self.assertEqual(study.tasks[0].count, 100)
        self.assertEqual(study.scorers, ("paper_code", "strict"))

    def test_everything(self):
        study = spec.parse("""
name = "all"
kind = "tasks"
title = "t"
seeds = [1, 2]
temperature = 1
top_p = 0.5
scorers = ["strict"]
compare = "models"
limits = "paper_code"
lambda = 4.5
keep_norms = 0
[arms]
clean = "clean"
x = "top_k:2,replace=zero"
[[models]]
name = "m"
chat_format = "none"
[[tasks]]
name = "passkey"
count = 3
seed = 4
max_new_tokens = 5
prompt = "{question} now"
system = ""
perplexity = true
stop = ["."]
lengths = [1, 2.5]
""")
        task = study.tasks[0]
        self.assertEqual((task.options, task.stop, task.perplexity, task.system),
                         ({"lengths": [1, 2.5]}, (".",), True, ""))
        self.assertEqual((study.temperature, study.lambda_), (1.0, 4.5))
        self.assertNotEqual(study.digest, spec.parse(GOOD).digest)
        self.assertEqual(spec.parse(GOOD).digest, spec.parse(GOOD).digest)

    def test_wrong_studies(self):
        model = '[[models]]\nname = "m"\n'
        for text, message in [
                ("name = ", "is not TOML"),
                ("\0", "is not TOML"),
                ("a = " + "[" * 5000, "is not TOML"),
                ('kind = "tasks"\n[[tasks]]\nname="art"', "name is missing"),
                (GOOD.replace('"tasks"', '"other"'),
                 "kind must be tasks, massive_values or rope_origin, got "
                 "'other'"),
                (GOOD.replace('"s"', '"a b"'), "name must be 1 to 64 letters"),
                (GOOD.replace('"s"', "3"), "name must be a text, got 3"),
                (GOOD.replace("sports", "sport"),
                 "tasks[0]: name must be aqua, art,"),
                ("count = 1\n" + GOOD, "unknown key 'count'; it must be arms,"),
                (GOOD + "size = 1", "tasks[0]: unknown key 'size'"),
                (GOOD + "min_population = 20000",
                 "tasks[0]: unknown key 'min_population'"),
                (GOOD + "count = 0", "count must be from 1 to"),
                (GOOD + "count = 1.5", "count must be a whole number, got 1.5"),
                (GOOD + "count = true", "count must be a whole number"),
                (GOOD + 'prompt = "x"', "prompt must have {question} once"),
                (GOOD + '[[tasks]]\nname = "sports"', "'sports' stands there "
                 "twice"),
                (GOOD + model + model, "models: 'm' stands there twice"),
                (GOOD + model + "x = 1", "models[0]: unknown key 'x'"),
                (GOOD + '[arms]\na = "top_k:1"', "must have one that is "
                 '"clean"'),
                (GOOD + '[arms]\nclean = "clean"\nb = "family"',
                 "arms named disrupted and control only"),
                (GOOD + "[arms]\nclean = 1", "must be a text as of qkctl's"),
                (GOOD + '[arms]\nclean = "clean"\n"x y" = "top_k:1"',
                 "must be 1 to 64 letters"),
                ("scorers = []\n" + GOOD, "scorers must not be empty"),
                ('scorers = ["best"]\n' + GOOD, "there is no 'best'; it must be "
                 "paper_code or strict"),
                ('scorers = ["strict", "strict"]\n' + GOOD, "twice"),
                ('seeds = ["a"]\n' + GOOD, "list of whole numbers, got 'a'"),
                ("seeds = [-1]\n" + GOOD, "from 0 to 2^63 - 1"),
                ("temperature = nan\n" + GOOD, "temperature must be from 0"),
                ("temperature = -1\n" + GOOD, "temperature must be from 0"),
                ('seeds = [1, 2]\n' + GOOD + '[arms]\nclean = "clean"',
                 "several seeds need temperature > 0"),
                (GOOD.replace("sports", "texts"), "nothing to score"),
                ('name = "s"\nkind = "tasks"\ntasks = []', "tasks must not be "
                 "empty"),
                ('name = "s"\nkind = "tasks"\ntasks = [1]',
                 "tasks[0] must be a table, got 1"),
                ('title = "' + "x" * 500 + '"\nzzz' + "z" * 500 + " = 1\n"
                 + GOOD, "unknown key 'zzzz")]:
            with self.subTest(text=text[:80]):
                with self.assertRaises(StudyError) as caught:
                    spec.parse(text, "s.toml")
                self.assertIn(message, str(caught.exception))
                self.assertIn("s.toml", str(caught.exception))
                self.assertLess(len(str(caught.exception)), 400)

    def test_files(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "s.toml").write_text(GOOD)
            self.assertEqual(spec.load(str(folder / "s.toml")).name, "s")
            (folder / "binary.toml").write_bytes(b"\xff\x00")
            (folder / "large.toml").write_bytes(b"#" * (1 << 20) + b"\n")
            for file, message in [("none.toml", "no ready study: those are"),
                                  ("binary.toml", "cannot be read"),
                                  ("large.toml", "larger than 1 MiB"),
                                  ("", "cannot be read")]:
                with self.assertRaisesRegex(StudyError, message):
                    spec.load(str(folder / file))


if __name__ == "__main__":
    unittest.main()
