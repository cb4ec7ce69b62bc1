"""Tests that docs/configuration.md says what config.proto says."""

import pathlib
import re
import unittest

import configuration_reference

ROOT = pathlib.Path(__file__).resolve().parents[2]


class ConfigurationReferenceTest(unittest.TestCase):
    def setUp(self):
        self.document = configuration_reference.make(ROOT)

    def test_it_is_up_to_date(self):
        self.assertEqual(
            (ROOT / configuration_reference.DOCUMENT).read_text(),
            self.document,
            f"run {configuration_reference.COMMAND} --update")

    def test_every_field_is_there_with_a_meaning(self):
        source = re.sub(r"//.*", "", (
            ROOT / "proto/qkscope/v1/config.proto").read_text())
        fields = re.findall(r"(\w+) = \d+;", source)
        values = re.findall(r"\b([A-Z]+) = \d+;", source)
        rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", self.document,
                          re.M)
        self.assertCountEqual([name for name, _ in rows] + values, fields)
        self.assertEqual([name for name, meaning in rows if not meaning], [])
        for value in values:
            self.assertIn(f"`{value}`: ", self.document)

    def test_every_flag_is_there(self):
        known = configuration_reference.flags_in_help(ROOT)
        self.assertIn("--tls-key", known)  # the second of a line
        shown = re.findall(r"Flag: `(--[a-z-]+)`", self.document)
        self.assertCountEqual(shown, known - configuration_reference.ACTIONS)


if __name__ == "__main__":
    unittest.main()
