"""Tests that the API keeps its promises and that breaches are noticed."""

import pathlib
import re
import shutil
import tempfile
import unittest

import proto_api

ROOT = pathlib.Path(__file__).resolve().parents[2]


class ThisApiTest(unittest.TestCase):
    def test_it_is_as_released_or_noted(self):
        self.assertEqual(proto_api.problems(ROOT), [])

    def test_the_list_has_everything(self):
        kinds = [part.kind for part in proto_api.read_list(ROOT).values()]
        text = "".join(path.read_text() for path in
                       ROOT.glob("proto/qkscope/v1/*.proto"))
        code = re.sub(r"//.*", "", text)
        for kind in ("message", "enum", "service", "rpc"):
            self.assertEqual(kinds.count(kind),
                             len(re.findall(rf"\b{kind} \w+ ?[({{]", code)),
                             kind)
        self.assertEqual(kinds.count("field") + kinds.count("value"),
                         len(re.findall(r"\w = \d+;", code)))


class ChangesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_")
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.protos = self.root / "proto/qkscope/v1"
        self.protos.mkdir(parents=True)
        self.write("package qkscope.v1; import 'qkscope/v1/b.proto';"
                   "service S { rpc Go(A) returns (stream A); }"
                   "message A { int32 x = 1; optional B b = 3;"
                   "  oneof o { string s = 4; bytes t = 5; }"
                   "  map<string, int32> m = 6; message In { bool y = 1; } }")
        (self.protos / "b.proto").write_text(
            "syntax = 'proto3'; package qkscope.v1;"
            "message B { repeated E es = 1; } enum E { ZERO = 0; ONE = 1; }")
        self.list = self.root / "proto/api.txt"
        self.list.write_text("")
        self.changelog = self.root / "CHANGELOG.md"
        self.changelog.write_text("# Changes\n\n## [Unreleased]\n\n"
                                  "## [0.1.0] - 2020-01-01\n\nA, b and x.\n")
        self.assertEqual(proto_api.update(self.root), [])
        self.list.write_text(self.list.read_text().replace(
            "unreleased ", "0.1.0 "))
        self.assertEqual(proto_api.problems(self.root), [])

    def write(self, text, name="a.proto"):
        (self.protos / name).write_text("syntax = 'proto3';" + text)

    def edit(self, old, new, name="a.proto"):
        file = self.protos / name
        text = file.read_text()
        self.assertIn(old, text)
        file.write_text(text.replace(old, new))

    def note(self, line):
        text = self.changelog.read_text()
        self.changelog.write_text(text.replace(
            "[Unreleased]\n", f"[Unreleased]\n\n- {line}\n", 1))

    def assert_breaks(self, part, *words):
        """Checks that both report the breach of `part`; the list stays."""
        before = self.list.read_text()
        for found in (proto_api.problems(self.root),
                      proto_api.update(self.root)):
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(part + " "), found)
            for word in words:
                self.assertIn(word, found[0])
        self.assertEqual(self.list.read_text(), before)

    def assert_asks(self, *words):
        """Checks that there is one problem, with these words in it."""
        found = proto_api.problems(self.root)
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_what_must_not_change(self):
        changes = [
            ("int32 x = 1", "int32 x = 2", "field A.x", "= 1, int32",
             "= 2, int32"),
            ("int32 x = 1", "int64 x = 1", "field A.x", "int64"),
            ("int32 x = 1", "optional int32 x = 1", "field A.x", "optional"),
            ("int32 x = 1", "repeated int32 x = 1", "field A.x", "repeated"),
            ("optional B b", "optional A b", "field A.b", "optional A"),
            ("optional B b", "B b", "field A.b", "3, B`"),
            ("bytes t = 5; }", "} bytes t = 5;", "field A.t", "in oneof o"),
            ("oneof o", "oneof choice", "field A.s", "oneof choice"),
            ("<string, int32>", "<string, int64>", "field A.m", "int64>"),
            ("bool y = 1", "int32 y = 1", "field A.In.y", "int32"),
            ("returns (stream A)", "returns (A)", "rpc S.Go", "A -> A"),
            ("Go(A)", "Go(B)", "rpc S.Go", "B -> stream A"),
            ("Go(A)", "Go(stream A)", "rpc S.Go", "stream A -> stream A"),
        ]
        text = (self.protos / "a.proto").read_text()
        for old, new, part, *words in changes:
            with self.subTest(new):
                (self.protos / "a.proto").write_text(text)
                self.edit(old, new)
                if "oneof choice" in new:  # Two fields are in it.
                    self.edit("bytes t = 5;", "")
                    self.edit("message A {", "message A { reserved 5;"
                              'reserved "t";')
                self.assert_breaks(part, *words)

    def test_an_enum_value_keeps_its_number(self):
        self.edit("ONE = 1", "ONE = 2", "b.proto")
        self.assert_breaks("value E.ONE", "`= 1`", "`= 2`")

    def test_a_new_name_is_a_removal(self):
        self.edit("int32 x = 1", "int32 z = 1")
        self.assert_breaks("field A.x", 'reserved 1; reserved "x";')

    def test_a_field_that_goes_is_reserved_by_number_and_name(self):
        for reserved in ("", "reserved 1;", 'reserved "x";',
                         'reserved 2 to 2; reserved "x";'):
            with self.subTest(reserved):
                text = (self.protos / "a.proto").read_text()
                self.edit("int32 x = 1;", reserved)
                self.assert_breaks("field A.x", 'reserved 1; reserved "x";')
                (self.protos / "a.proto").write_text(text)
        self.edit("int32 x = 1;", 'reserved 1; reserved "x";')
        self.assertEqual(proto_api.update(self.root), [])
        self.assertIn("0.1.0-unreleased field A.x = 1, int32",
                      self.list.read_text())
        self.assert_asks("field A.x is gone", "[Unreleased]", "`A.x`")
        self.note("`A.x` is gone.")
        self.assertEqual(proto_api.problems(self.root), [])
        # The reservation must stay for ever.
        self.assertEqual(proto_api.release(self.root, "0.2.0"), [])
        self.edit('reserved 1; reserved "x";', "")
        self.assert_breaks("field A.x", "reserved 1")
        self.edit("message A {", "message A { int32 x = 1;")
        self.assert_breaks("field A.x", "is back")

    def test_an_enum_value_that_goes_is_reserved(self):
        self.edit("ONE = 1;", "", "b.proto")
        self.assert_breaks("value E.ONE", 'reserved 1; reserved "ONE";')
        self.edit("ZERO = 0;", 'ZERO = 0; reserved 1 to 4; reserved "ONE";',
                  "b.proto")
        self.assertEqual(proto_api.update(self.root), [])

    def test_messages_enums_services_and_rpcs_stay(self):
        for name, old, new, part in [
                ("a.proto", "message In { bool y = 1; }", "", "message A.In"),
                ("a.proto", "rpc Go(A) returns (stream A);", "", "rpc S.Go"),
                ("a.proto", "service S { rpc Go(A) returns (stream A); }", "",
                 "service S"),
                ("b.proto", "enum E", "enum F", "enum E")]:
            with self.subTest(part):
                text = (self.protos / name).read_text()
                self.edit(old, new, name)
                if name == "b.proto":
                    self.edit("repeated E es = 1;",
                              'reserved 1; reserved "es";', name)
                self.assert_breaks(part, "it stays")
                (self.protos / name).write_text(text)

    def test_an_addition_is_listed_and_noted(self):
        self.edit("int32 x = 1;", "int32 x = 1; string more = 7;")
        found = proto_api.problems(self.root)
        self.assertEqual(len(found), 2, found)
        self.assertIn("not up to date", found[0])
        self.assertIn("field A.more", found[0])
        self.assertIn("proto_api.py --update", found[0])
        self.assertIn("`A.more`", found[1])
        self.assertEqual(proto_api.update(self.root), [])
        self.assertIn("unreleased field A.more = 7, string\n",
                      self.list.read_text())
        self.note("`A.more2` and `A.more.x` are other things")
        self.assert_asks("field A.more is new", "## [Unreleased]",
                         "CHANGELOG.md", "`A.more`")
        self.note("`A.more` is more.")
        self.assertEqual(proto_api.problems(self.root), [])
        # A part may change and be removed until it has been in a release.
        self.edit("string more = 7", "bytes more = 8")
        self.assert_asks("not up to date")
        self.assertEqual(proto_api.update(self.root), [])
        self.assertEqual(proto_api.problems(self.root), [])
        self.assertEqual(proto_api.release(self.root, "0.2.0"), [])
        self.assertIn("0.2.0 field A.more = 8, bytes\n", self.list.read_text())
        self.assertEqual(proto_api.problems(self.root), [])
        self.edit("bytes more = 8", "bytes more = 9")
        self.assert_breaks("field A.more", "= 8, bytes")

    def test_a_new_message_is_noted_once(self):
        self.edit("service S {", "message New { int32 a = 1; enum E { Z = 0; }"
                  "} service S { rpc Come(New) returns (New);")
        self.assertEqual(proto_api.update(self.root), [])
        self.note("`New` and `S.Come`")
        self.assertEqual(proto_api.problems(self.root), [])

    def test_a_line_of_an_older_release_is_no_note(self):
        self.edit("int32 x = 1;", "int32 x = 1; string more = 7;")
        self.assertEqual(proto_api.update(self.root), [])
        self.changelog.write_text(self.changelog.read_text()
                                  + "- `A.more` is more.\n")
        self.assert_asks("field A.more is new")

    def test_additions_to_a_first_release_to_come(self):
        self.changelog.write_text("# Changes\n\n## [Unreleased]\n\nAll.\n")
        self.assertEqual(proto_api.problems(self.root), [])
        self.edit("int32 x = 1;", "int32 x = 1; string more = 7;")
        self.assertEqual(proto_api.update(self.root), [])
        self.assert_asks("field A.more is new", "[Unreleased]")
        self.note("`A.more` is more.")
        self.assertEqual(proto_api.problems(self.root), [])

    def test_what_cannot_be_read_is_said(self):
        self.edit("int32 x = 1;", "int32 x = 3;")  # b's number
        with self.assertRaisesRegex(proto_api.CannotRead, "protoc"):
            proto_api.problems(self.root)
        self.edit("int32 x = 3;", "int32 x = 1;")
        self.list.write_text("0.1.0\n")
        with self.assertRaisesRegex(proto_api.CannotRead, "api.txt:1: "):
            proto_api.problems(self.root)


if __name__ == "__main__":
    unittest.main()
