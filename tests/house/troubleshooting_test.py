"""Tests that docs/troubleshooting.md quotes messages that the programs have."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def literals():
    """Returns all string literals of the programs, adjacent ones joined."""
    text = ""
    for folder in ("engine", "server", "client"):
        for path in sorted((ROOT / folder).rglob("*.[ch]*")):
            source = path.read_text()
            # Also those that StrCat joins around a value, which `…` stands for.
            text += re.sub(r'"\s*\n\s*"', "", source)
    return text


def messages(document):
    """Returns the messages in the first column of the tables but the last."""
    tables = document.rpartition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| .* \| .* \|$", tables, re.M)
    return [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row)]


def missing(text, quoted):
    return [message for message in quoted
            if not all(part.strip(" ;") in text
                       for part in re.split(r"…", message) if part.strip())]


class TroubleshootingTest(unittest.TestCase):
    def test_the_messages_are_those_of_the_programs(self):
        quoted = messages((ROOT / "docs/troubleshooting.md").read_text())
        self.assertGreater(len(quoted), 25)
        self.assertEqual(missing(literals(), quoted), [])

    def test_a_message_that_does_not_exist_is_noticed(self):
        self.assertEqual(missing(literals(), ["queue full (…)", "no tea"]),
                         ["no tea"])


if __name__ == "__main__":
    unittest.main()
