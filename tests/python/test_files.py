"""Saved analyses without a server: what is written, and what is refused."""

import json
import os
import pathlib
import resource
import stat
import tempfile
import unittest
from unittest import mock

import safetensors
import safetensors.numpy
import support  # pylint: disable=unused-import
from fake_stream import fake_stream

import qkscope
from qkscope import BadFile, Run, atomic, wire
from qkscope.files import write_manifest
from qkscope.server_list import parse_server_list, read_server_list, replica_of
from qkscope.streams import RunBuilder


def fake_run(**options):
    builder = RunBuilder()
    for event in fake_stream(**options):
        builder.add(wire.decode_event(event.SerializeToString()))
    return builder.run()


class Case(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_python_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "a.safetensors"

    def bad(self, pattern, call):
        with self.assertRaises(BadFile) as caught:
            call()
        self.assertRegex(str(caught.exception), pattern)
        self.assertNotIn("\n", str(caught.exception))
        self.assertIsInstance(caught.exception, ValueError)


class FilesTest(Case):

    def test_another_library_reads_it(self):
        run = fake_run(images=1)
        run.to_safetensors(self.path)
        tensors = safetensors.numpy.load_file(self.path)
        self.assertEqual(set(tensors), {t.name for t in run.tensors})
        for tensor in run.tensors:
            self.assertEqual(tensors[tensor.name].tobytes(),
                             bytes(tensor.data))
        with safetensors.safe_open(self.path, "numpy") as file:
            metadata = file.metadata()
        self.assertEqual(metadata["format"], "qkscope")
        self.assertEqual(json.loads(metadata["axes"])[
            "clean/image.0.vision.0.hook_rot_q"], ["head", "dim"])

    def test_what_is_written_is_read(self):
        run = fake_run(images=2)
        run.to_safetensors(self.path)
        read = Run.from_safetensors(self.path)
        self.assertEqual([t.header for t in read.tensors],
                         [t.header for t in run.tensors])
        self.assertEqual(read.manifest, run.manifest)
        self.assertEqual(read.arms, ["clean", "top_k:1"])
        self.assertEqual(read["top_k:1"].comparison.mean_kl, 0.5)
        manifest = self.folder / "m.json"
        write_manifest(run, manifest)
        self.assertEqual(Run.from_safetensors(manifest).manifest, run.manifest)
        self.assertEqual(len(Run.from_safetensors(manifest).tensors), 0)

    def test_damaged_files(self):
        fake_run().to_safetensors(self.path)
        whole = self.path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:8 + length])
        first = next(name for name in header if name != "__metadata__")

        def with_header(change):
            copy = json.loads(json.dumps(header))
            change(copy)
            text = json.dumps(copy).encode()
            return len(text).to_bytes(8, "little") + text + whole[8 + length:]

        def metadata(key, value):
            return with_header(
                lambda h: h["__metadata__"].__setitem__(key, value))
        for content, message in (
                (b"", "neither a manifest nor"),
                (b"{}", "neither a manifest nor"),
                (b'{"model": 3}', "neither a manifest nor"),
                (whole[:100], "is truncated"),
                (whole[:-1], "lies outside the file"),
                (whole[:8] + b"{" * length + whole[8 + length:], "is not JSON"),
                (with_header(lambda h: h.pop("__metadata__")),
                 "no qkscope manifest"),
                (with_header(lambda h: h[first].pop("data_offsets")),
                 "has no data_offsets"),
                (with_header(lambda h: h[first].__setitem__(
                    "data_offsets", [0.5, 1])), "has no data_offsets"),
                (with_header(lambda h: h[first].__setitem__(
                    "data_offsets", [0, 4])), "does not match its 4 bytes"),
                (with_header(lambda h: h.__setitem__("x", h[first])),
                 "do not describe x"),
                (metadata("manifest", "{"), "its manifest is not JSON"),
                (metadata("manifest", '{"model": 3}'),
                 "its manifest cannot be read"),
                (metadata("layers", "[1"), "its layers is not JSON"),
                (metadata("layers", "[]"), "its layers is not JSON of"),
                (metadata("comparisons", '[{"kl": "x"}]'),
                 "a comparison cannot be read")):
            with self.subTest(message):
                self.path.write_bytes(content)
                self.bad(message, lambda: Run.from_safetensors(self.path))
        self.bad("cannot read .*No such file",
                 lambda: Run.from_safetensors(self.folder / "none"))
        self.bad("cannot read .*Is a directory",
                 lambda: Run.from_safetensors(self.folder))

    def test_fields_of_a_newer_version_are_passed_over(self):
        fake_run().to_safetensors(self.path)
        whole = self.path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:8 + length])
        manifest = json.loads(header["__metadata__"]["manifest"])
        manifest["from_the_future"] = {"x": 1}
        header["__metadata__"]["manifest"] = json.dumps(manifest)
        text = json.dumps(header).encode()
        self.path.write_bytes(len(text).to_bytes(8, "little") + text
                              + whole[8 + length:])
        self.assertEqual(Run.from_safetensors(self.path).model, "fake")


class AtomicTest(Case):

    def test_it_keeps_links_and_replaces_files(self):
        self.path.write_bytes(b"old")
        link = self.folder / "link"
        link.symlink_to(self.path)
        atomic.write_atomically(link, [b"new ", memoryview(b"content")])
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.read_bytes(), b"new content")
        self.assertEqual(len(list(self.folder.iterdir())), 2)

    def test_the_mode_is_the_usual_one(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        atomic.write_atomically(self.path, [b"x"])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_failures_leave_what_was_there(self):
        self.path.write_bytes(b"old")

        def parts():
            yield b"new"
            raise KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            atomic.write_atomically(self.path, parts())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            self.bad("cannot write .*File too large",
                     lambda: atomic.write_atomically(self.path,
                                                     [b"x" * 10000]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with mock.patch("os.fsync", side_effect=OSError(5, "I/O error")):
            self.bad("I/O error",
                     lambda: atomic.write_atomically(self.path, [b"x"]))
        self.assertEqual(self.path.read_bytes(), b"old")
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    def test_paths_that_cannot_be_written(self):
        for path, message in (
                (self.folder / "no" / "a", "there is no folder .*/no"),
                (self.folder, "Is a directory"),
                (f"{self.folder}/b/", "Is a directory"),
                ("/proc/none/a", "cannot write")):
            self.bad(message, lambda path=path: atomic.check_writable(path))
        self.bad("No space left", lambda: atomic.write_atomically(
            "/dev/full", [b"x"]))
        atomic.check_writable(self.path)
        atomic.check_writable("/dev/null")
        atomic.write_atomically("/dev/null", [b"x"])
        self.assertEqual(list(self.folder.iterdir()), [])


class ServerListTest(Case):

    def test_lists(self):
        servers = parse_server_list(
            "# all\n\n gpu1.example:7461 a\r\n[2001:db8::7]:7461 b # second\n"
            "gpu1.example:7461 a\n10.0.0.1:1\n", "f")
        self.assertEqual([tuple(server) for server in servers], [
            ("gpu1.example:7461", "a"), ("[2001:db8::7]:7461", "b"),
            ("10.0.0.1:1", "")])

    def test_bad_lines(self):
        for line in ("host", "host:0", "host:65536", "host:+1", ":7461",
                     "unix:/tmp/x:1", "a b:1", "host:1 Replica", "host:1 -a",
                     "host:1 a b", "[::1:7461", "host:99999999"):
            with self.assertRaisesRegex(qkscope.InvalidRequest,
                                        "f:2: must be HOST:PORT"):
                parse_server_list("\n" + line, "f")

    def test_folders(self):
        (self.folder / "b").write_text("two:2 b\n")
        (self.folder / "a").write_text("one:1\ntwo:2 b\n")
        (self.folder / ".hidden").write_text("nonsense")
        self.assertEqual(
            [server.address for server in read_server_list(str(self.folder))],
            ["one:1", "two:2"])
        with self.assertRaises(qkscope.Unavailable):
            read_server_list(str(self.folder / "none"))
        (self.folder / "c").write_bytes(b"\xff")
        with self.assertRaisesRegex(qkscope.InvalidRequest, "UTF-8"):
            read_server_list(str(self.folder))

    def test_replicas_of_ids(self):
        self.assertEqual(replica_of("1f2e3d4c5b6a7988-b"), "b")
        for text in ("1f2e3d4c5b6a7988", "x", "", "1f2e3d4c5b6a7988-B",
                     "1f2e3d4c5b6a7988-"):
            self.assertEqual(replica_of(text), "")


class DisplayTest(unittest.TestCase):

    def test_the_table(self):
        html = fake_run(arms=("clean", "<b>&"))._repr_html_()
        self.assertIn("&lt;b&gt;&amp;", html)
        self.assertNotIn("<b>&", html)
        self.assertEqual(html.count("<svg"), 6)
        self.assertNotIn("<script", html)
        self.assertIn("0.5000", html)
        self.assertEqual(html.count("<tr>"), 3)

    def test_runs_without_comparison_or_tensors(self):
        run = fake_run()
        run.parts.comparisons.clear()
        run.parts.tensors.clear()
        self.assertIn("<table>", run._repr_html_())
        self.assertIn("clean", repr(run))

    def test_missing_extras_say_what_to_install(self):
        from qkscope.extras import need
        with self.assertRaisesRegex(qkscope.MissingExtra,
                                    r"pip install 'qkscope\[data\]'"):
            need("no_such_package", "data")


if __name__ == "__main__":
    unittest.main()
