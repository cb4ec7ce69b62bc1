"""Every scorer of qkscope.study against cases made by hand: what the published
code decides, quirks included, and what is meant."""

import unittest

from qkscope.study.errors import StudyError
from qkscope.study.scorers import SCORERS, distinct_2, score
from qkscope.study.tasks import Item

OPTIONS = {"options": ["A)21", "B)21.5", "C)23", "D)a third", "E)None"]}

# kind, right answer, detail or question, text, paper_code (read as, right),
# strict (read as, right)
CASES = [
    # Substrings, and yes goes first.
    ("yes_no", "yes", "Yes.", ("yes", True), ("yes", True)),
    ("yes_no", "no", "No.", ("no", True), ("no", True)),
    ("yes_no", "no", "No, that is incorrect.", ("yes", False), ("no", True)),
    ("yes_no", "yes", "No, that is incorrect.", ("yes", True), ("no", False)),
    ("yes_no", "no", "No, it is in Tokyo.", ("yes", False), ("no", True)),
    ("yes_no", "no", "That is not true.", ("yes", False), ("no", True)),
    ("yes_no", "no", "That is not entirely correct.", ("yes", False),
     ("no", True)),
    ("yes_no", "no", "It isn\u2019t right.", ("yes", False), ("no", True)),
    ("yes_no", "no", "This statement is false.", ("no", True), ("no", True)),
    ("yes_no", "yes", "I do not know.", ("no", False), (None, False)),
    ("yes_no", "no", "I do not know.", ("no", True), (None, False)),
    ("yes_no", "no", "Norway.", ("no", True), (None, False)),
    ("yes_no", "yes", "Yesterday it rained.", ("yes", True), (None, False)),
    ("yes_no", "yes", "", (None, False), (None, False)),
    ("yes_no", "yes", "yes\nNo", ("yes", True), ("yes", True)),
    ("yes_no", "no", "no, yes", ("yes", False), ("no", True)),
    ("yes_no", "yes", "TRUE", ("yes", True), ("yes", True)),
    # The text of the right option, in the case that it is written in.
    ("choice", "A", "The answer is A.", (None, False), ("A", True)),
    ("choice", "A", "It is 21", ("A", True), ("A", True)),
    ("choice", "A", "It is 21.5", ("A", True), ("B", False)),
    ("choice", "B", "It is 21.5", ("B", True), ("B", True)),
    ("choice", "C", "The answer is (C) 23", ("C", True), ("C", True)),
    ("choice", "C", "(A) is wrong. The answer is C", (None, False),
     ("C", True)),
    ("choice", "C", "23 or 21", ("C", True), (None, False)),
    ("choice", "D", "A third", (None, False), (None, False)),
    ("choice", "D", "a third of them", ("D", True), ("D", True)),
    ("choice", "B", "The answer is B because of the sum", (None, False),
     ("B", True)),
    ("choice", "A", "The answer is A dog", (None, False), (None, False)),
    ("choice", "E", "None", ("E", True), ("E", True)),
    ("choice", "E", "E", (None, False), ("E", True)),
    ("choice", "E", "E.", (None, False), ("E", True)),
    # The last number, without its sign.
    ("number", "18", "3 and then 18", ("18", True), ("18", True)),
    ("number", "18", "-18", ("18", True), ("-18", False)),
    ("number", "-18", "18", ("18", True), ("18", False)),
    ("number", "1200", "It costs $1,200.", ("1,200", True), ("1,200", True)),
    ("number", "18", "The answer is 18. I checked it 2 times.", ("2", False),
     ("18", True)),
    ("number", "18", "18.0", ("18.0", True), ("18.0", True)),
    ("number", "18", "eighteen", (None, False), (None, False)),
    ("number", "18", "#### 18", ("18", True), ("18", True)),
    ("number", "18", "answer: $18, not 20", ("20", False), ("18", True)),
    ("number", "0.1", "0.10", ("0.10", True), ("0.10", True)),
    # Wrong if both words are there.
    ("sentiment", "negative", "Negative", ("negative", True),
     ("negative", True)),
    ("sentiment", "negative", "Negative, not positive", (None, False),
     ("negative", True)),
    ("sentiment", "negative", "not positive", ("positive", False),
     ("negative", True)),
    ("sentiment", "positive", "not at all; great", (None, False),
     (None, False)),
    ("sentiment", "positive", "positively", ("positive", True), (None, False)),
    # The first number of the context is a substring of the answer.
    ("passkey", "71432", "71432", ("71432", True), ("71432", True)),
    ("passkey", "71432", "It is 71432.", ("71432", True), ("71432", True)),
    ("passkey", "71432", "5 71432", ("71432", True), ("5", False)),
    ("passkey", "71432", "9714320", ("71432", True), ("9714320", False)),
    ("passkey", "71432", "7143", (None, False), ("7143", False)),
    ("passkey", "71432", "", (None, False), (None, False)),
]


class ScorersTest(unittest.TestCase):

    def test_cases(self):
        for kind, answer, text, paper, strict in CASES:
            item = Item("i", "The passkey is 71432. 71432 is the passkey.",
                        answer, OPTIONS if kind == "choice" else {})
            for scorer, wanted in (("paper_code", paper), ("strict", strict)):
                with self.subTest(scorer=scorer, kind=kind, answer=answer,
                                  text=text):
                    got = score(scorer, kind, item, text)
                    self.assertEqual((got.read_as, got.right), wanted)

    def test_both_scorers_know_every_kind(self):
        kinds = {case[0] for case in CASES}
        for scorer in SCORERS.values():
            self.assertEqual(set(scorer), kinds)

    def test_an_unknown_scorer(self):
        with self.assertRaisesRegex(
                StudyError, "no scorer 'best'; it must be paper_code or strict"):
            score("best", "yes_no", Item("i", "q", "yes"), "yes")

    def test_long_answers_take_no_time(self):
        # Patterns that back up would take hours here.
        for text in ("not " * 30_000, "1," * 60_000, "answer is " * 20_000,
                     "a" * 200_000, " \t" * 60_000, "answer:" + " " * 100_000):
            for kind in SCORERS["strict"]:
                item = Item("i", "1", "yes", OPTIONS)
                for scorer in SCORERS:
                    score(scorer, kind, item, text)

    def test_distinct_2(self):
        self.assertEqual(distinct_2("a b a b"), 2 / 3)  # a b, b a, a b
        self.assertEqual(distinct_2("The cat. the CAT."), 3 / 5)
        self.assertEqual(distinct_2("one two three"), 1)
        self.assertIsNone(distinct_2("one"))
        self.assertIsNone(distinct_2(""))


if __name__ == "__main__":
    unittest.main()
