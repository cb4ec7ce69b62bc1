"""Runs deploy/otel/log_to_spans.py on the log of a real server, with a receiver of
OTLP over HTTP."""
# row: Traces: a real server's log as OTLP spans | run | quick | 25

import gzip
import http.server
import json
import signal
import subprocess
import sys
import threading
import time

import grpc
import programs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.semconv._incubating.attributes import (gen_ai_attributes,
                                                          rpc_attributes,
                                                          user_attributes)
from opentelemetry.semconv.attributes import error_attributes
from programs import wait_until

OTEL = programs.ROOT / "deploy" / "otel"
sys.path.insert(0, str(OTEL))

import log_to_spans  # noqa: E402 (from the folder above)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "a secret that no span may hold"
CONVENTIONS = {
    value for module in (rpc_attributes, gen_ai_attributes, user_attributes,
                         error_attributes)
    for name, value in vars(module).items() if isinstance(value, str)}
OWN = {"qkscope.arms", "qkscope.phase"}
MILLISECOND = 1_000_000


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what it is sent; while `refuse` is set it answers 503."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans = []
        self.resources = []
        self.refuse = False
        self.refused = 0
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def named(self, *ids):
        return [span for span in list(self.spans) if span.span_id in ids]

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        good = self.path == "/v1/traces" and not self.server.refuse
        if good:
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(
                body)
            for part in request.resource_spans:
                self.server.resources.append(part.resource)
                for scope in part.scope_spans:
                    self.server.spans += scope.spans
        else:
            self.server.refused += 1
        self.send_response(200 if good else 503)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(span):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value"))
            for pair in span.attributes}


def duration_ms(span):
    return (span.end_time_unix_nano - span.start_time_unix_nano) / MILLISECOND


def make_stubs(folder):
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc",
         f"-I{programs.ROOT / 'proto'}", f"--python_out={folder}",
         f"--grpc_python_out={folder}",
         *map(str, (programs.ROOT / "proto/qkscope/v1").glob("*.proto"))],
        check=True)
    sys.path.insert(0, str(folder))


class ExporterCase(programs.RealCase):

    def setUp(self):
        self.folder = programs.work_folder(type(self))
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)

    def start(self, *flags, name="spans", **rest):
        program = programs.Program(
            self.folder, name, sys.executable, "-B", OTEL / "log_to_spans.py",
            *flags, environment={
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.endpoint,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}, **rest)
        self.addCleanup(program.stop, signal.SIGKILL)
        return program

    def await_spans(self, count):
        return wait_until(
            lambda: len(self.receiver.spans) >= count and self.receiver.spans,
            lambda: f"{count} spans; there are {len(self.receiver.spans)}")


def line(number, **changes):
    """A line of a call that took 20 ms."""
    fields = {
        "ts": f"2026-01-02T03:04:{number % 60:02}.500Z", "level": "info",
        "event": "rpc", "id": f"{number:016x}", "alias": "ada",
        "method": "Analyze", "model": "tiny", "code": "OK", "reason": "",
        "ref": "", "prompt_tokens": 7, "generated_tokens": 0, "arms": 2,
        "bytes": 99, "queue_ms": 5.0, "total_ms": 20.0, "prefill_ms": 4.0,
        "decode_ms": 2.0, "capture_ms": 1.0, "compare_ms": 0.5,
        "stream_ms": 9.0, **changes}
    return json.dumps({key: value for key, value in fields.items()
                       if value is not None}) + "\n"


class LinesCheck(ExporterCase):
    """Lines that the test writes."""

    def ended(self, program):
        """Returns what the exporter has counted, once it has ended."""
        program.process.wait(programs.PATIENCE_S)
        (counts,) = [entry for entry in program.lines()
                     if entry.get("event") == "log_to_spans_ended"]
        return counts

    def test_lines_of_a_pipe(self):
        lines = [
            line(1, trace_id=TRACE, parent_id=PARENT),
            line(2, code="INTERNAL", prompt=SECRET, reason=SECRET, ref="0f"),
            line(3, code="INVALID_ARGUMENT", method="Generate",
                 reason="bad request", generated_tokens=3),
            line(4, method="Made_up", model=""),
            line(5, trace_id=TRACE, parent_id=PARENT, sampled=False),
            line(6, event="listening"),
            line(7, id="none"), line(8, ts="yesterday"), line(9, total_ms=-1),
            line(10, total_ms="20"), line(11, code="FINE"),
            line(12, trace_id="xyz", parent_id=PARENT),
            "{\n", "[]\n", "not JSON\n", line(13)[:-9]]
        program = self.start(stdin=subprocess.PIPE)
        program.process.stdin.write("".join(lines).encode())
        program.process.stdin.close()
        counts = self.ended(program)
        spans = {span.span_id.hex(): span for span in self.receiver.spans}
        self.assertEqual(counts["malformed"], 9)
        self.assertEqual(counts["skipped"], 2)
        self.assertEqual(counts["sent"], len(self.receiver.spans))
        roots = [span for span in spans.values() if span.kind
                 == trace_pb2.Span.SPAN_KIND_SERVER]
        self.assertEqual([span.span_id.hex() for span in roots],
                         [f"{number:016x}" for number in (1, 2, 3, 4)])
        first, second, third, fourth = roots
        self.assertEqual(first.trace_id.hex(), TRACE)
        self.assertEqual(first.parent_span_id.hex(), PARENT)
        self.assertEqual(second.parent_span_id, b"")
        self.assertEqual(len({span.trace_id for span in roots}), 4)
        self.assertEqual(first.name, "qkscope.v1.Analysis/Analyze")
        self.assertEqual(fourth.name, "_OTHER")
        self.assertEqual(
            [span.status.code for span in roots],
            [trace_pb2.Status.STATUS_CODE_UNSET,
             trace_pb2.Status.STATUS_CODE_ERROR,
             trace_pb2.Status.STATUS_CODE_UNSET,
             trace_pb2.Status.STATUS_CODE_UNSET])
        self.assertEqual(attributes(second)["error.type"], "INTERNAL")
        self.assertNotIn("error.type", attributes(third))
        self.assertEqual(attributes(third)["gen_ai.operation.name"],
                         "text_completion")
        self.assertEqual(attributes(third)["gen_ai.usage.output_tokens"], 3)
        self.assertNotIn("gen_ai.request.model", attributes(fourth))
        end = 1767323041_500_000_000
        self.assertEqual(first.end_time_unix_nano, end)
        self.assertEqual(first.start_time_unix_nano, end - 20 * MILLISECOND)
        children = {
            span.name: (span.start_time_unix_nano - end) / MILLISECOND + 20
            for span in spans.values()
            if span.parent_span_id == first.span_id}
        self.assertEqual(children, {"queue": 0, "prefill": 5, "capture": 5,
                                    "decode": 9, "compare": 11, "stream": 11})
        self.assertNotIn(SECRET, str(self.receiver.spans))
        for span in spans.values():
            self.assertLessEqual(attributes(span).keys(), CONVENTIONS | OWN)
        names = {pair.key: pair.value.string_value
                 for pair in self.receiver.resources[0].attributes}
        self.assertEqual(names["service.name"], "qkscope")

    def test_children_lie_within_their_parent_whatever_the_line_says(self):
        program = self.start(stdin=subprocess.PIPE)
        program.process.stdin.write(line(
            1, queue_ms=15, prefill_ms=9, decode_ms=90, capture_ms=70,
            compare_ms=1, stream_ms=500).encode())
        program.process.stdin.close()
        self.ended(program)
        (root,) = [span for span in self.receiver.spans
                   if not span.parent_span_id]
        self.assertEqual(len(self.receiver.spans), 5)  # nothing is compared
        for span in self.receiver.spans:
            self.assertGreaterEqual(span.start_time_unix_nano,
                                    root.start_time_unix_nano)
            self.assertLessEqual(span.end_time_unix_nano,
                                 root.end_time_unix_nano)

    def test_a_file_that_grows_is_rotated_and_is_followed_again(self):
        log, state = self.folder / "q.log", self.folder / "q.state"
        log.write_text(line(1))
        flags = ["--follow", log, "--state", state, "--from-start"]
        program = self.start(*flags)
        self.await_spans(7)
        with log.open("a") as old:
            old.write(line(2) + line(3)[:40])
            old.flush()
            self.await_spans(14)
            log.rename(self.folder / "q.log.1")
            # The server still has the renamed file, then opens a new one.
            old.write(line(3)[40:])
        log.write_text(line(4))
        self.await_spans(28)
        self.assertEqual(program.stop(), 0)

        # Rotated while nobody follows.
        with log.open("a") as old:
            old.write(line(5))
        log.rename(self.folder / "q.log.1")
        log.write_text(line(6))
        program = self.start(*flags)
        self.await_spans(42)
        self.assertEqual(program.stop(), 0)
        roots = [int(span.span_id.hex(), 16) for span in self.receiver.spans
                 if not span.parent_span_id]
        self.assertEqual(roots, [1, 2, 3, 4, 5, 6])

        # Truncated.
        program = self.start(*flags)
        with log.open("a") as file:
            file.write(line(7))
        self.await_spans(49)
        log.write_text("")
        wait_until(lambda: json.loads(state.read_text())["offset"] == 0,
                   state.read_text)
        with log.open("a") as file:
            file.write(line(8))
        self.await_spans(56)
        self.assertEqual(program.stop(), 0)
        self.assertEqual(len(self.receiver.spans), 56)

    def test_a_renamed_file_is_read_until_the_next_has_content(self):
        path = self.folder / "q.log"
        log = log_to_spans.LogFile(path, None, from_start=True)
        self.assertEqual(list(log.lines()), [])
        with path.open("w") as old:
            old.write("1\n2")
            old.flush()
            self.assertEqual(list(log.lines()), [b"1\n"])
            path.rename(self.folder / "q.log.1")
            self.assertEqual(list(log.lines()), [])
            path.touch()
            self.assertEqual(list(log.lines()), [])
            old.write("\n3\n")
        self.assertEqual(list(log.lines()), [b"2\n", b"3\n"])
        path.write_text("4\n")
        self.assertEqual(list(log.lines()), [b"4\n"])

    def test_it_begins_at_the_end_of_a_file_that_it_does_not_know(self):
        log, state = self.folder / "q.log", self.folder / "q.state"
        log.write_text(line(1))
        self.start("--follow", log, "--state", state)
        wait_until(state.exists, "a position")
        with log.open("a") as file:
            file.write(line(2))
        self.assertEqual(
            {span.trace_id for span in self.await_spans(7)},
            {self.receiver.spans[0].trace_id})
        self.assertEqual(
            [span.span_id.hex() for span in self.receiver.spans
             if not span.parent_span_id], [f"{2:016x}"])

    def test_a_collector_that_is_away_loses_nothing(self):
        log, state = self.folder / "q.log", self.folder / "q.state"
        log.write_text("".join(line(number) for number in range(1, 201)))
        self.receiver.refuse = True
        flags = ["--follow", log, "--state", state, "--from-start"]
        program = self.start(*flags)
        wait_until(lambda: self.receiver.refused > 1, "a second try")
        # It ends at once, and has not forgotten.
        self.assertEqual(program.stop(), 0)
        self.assertFalse(state.exists())
        program = self.start(*flags)
        refused = self.receiver.refused
        wait_until(lambda: self.receiver.refused > refused, "another try")
        self.receiver.refuse = False
        self.await_spans(1400)
        self.assertEqual(program.stop(), 0)
        self.assertEqual(len(self.receiver.spans), 1400)
        self.assertEqual(len({span.span_id for span in self.receiver.spans}),
                         1400)

    def test_after_a_while_a_batch_is_dropped_and_counted(self):
        self.receiver.refuse = True
        program = self.start("--retry-for", "0.1", stdin=subprocess.PIPE)
        program.process.stdin.write(line(1).encode())
        program.process.stdin.close()
        counts = self.ended(program)
        self.assertEqual((counts["sent"], counts["dropped"]), (0, 7))


class RealServerCheck(ExporterCase):
    """Requests of a real server, some of a client with a trace of its own."""

    @classmethod
    def setUpClass(cls):
        cls.base = programs.work_folder(cls)
        cls.log = cls.base / "qkscoped.log"
        cls.server = cls.keep(programs.Server(
            cls.base, "--model", f"tiny={programs.TINY_MODEL}", "--log-file",
            cls.log, "--spool", cls.base / "spool"))
        make_stubs(cls.base / "stubs")

    def setUp(self):
        super().setUp()
        self.program = self.start("--follow", self.log, "--from-start",
                                  "--state", self.folder / "state")

    def call(self, method, request_type, answer_type, request, sampled=True):
        """Makes a call within the client's trace; returns its answers and its
        request id."""
        channel = grpc.insecure_channel(self.server.listen)
        with channel:
            call = channel.unary_stream(
                f"/qkscope.v1.Analysis/{method}",
                request_type.SerializeToString, answer_type.FromString)(
                    request, timeout=programs.PATIENCE_S, metadata=[
                        ("traceparent",
                         f"00-{TRACE}-{PARENT}-0{int(sampled)}")])
            answers = list(call)
            trailers = dict(call.trailing_metadata())
        return answers, trailers["x-qkscope-request-id"]

    def analyze(self, **rest):
        from qkscope.v1 import analysis_pb2, spec_pb2
        request = analysis_pb2.AnalyzeRequest(
            model="tiny", input={"token_ids": {"ids": [3, 1, 41, 59, 26, 53]}},
            arms=[{"name": "clean"},
                  {"name": "top", "disruptions": [{"top_k": {"k": 1}}]}],
            capture={"points": [spec_pb2.HOOK_ROT_Q]},
            compare={"baseline": "clean"}, generate={"max_new_tokens": 4},
            **rest.pop("fields", {}))
        return self.call("Analyze", analysis_pb2.AnalyzeRequest,
                         analysis_pb2.AnalyzeEvent, request, **rest)

    def spans_of(self, request_id):
        """Waits for a request's spans; returns its own and those below."""
        own = bytes.fromhex(request_id.partition("-")[0])
        (root,) = wait_until(
            lambda: [span for span in self.receiver.spans
                     if span.span_id == own],
            lambda: f"{request_id} in {self.log.read_text()}")
        return root, {span.name: span for span in self.receiver.spans
                      if span.parent_span_id == own}

    def assert_phases(self, root, children, times):
        """The children lie within the request's span and last as long as
        Finished says."""
        for span in children.values():
            self.assertEqual(span.trace_id, root.trace_id)
            self.assertGreaterEqual(span.start_time_unix_nano,
                                    root.start_time_unix_nano)
            self.assertLessEqual(span.end_time_unix_nano,
                                 root.end_time_unix_nano)
        for phase in ("prefill", "decode", "capture", "compare", "stream"):
            told = getattr(times, f"{phase}_ms")
            self.assertGreater(told, 0, phase)
            # The log has six digits.
            self.assertAlmostEqual(duration_ms(children[phase]), told,
                                   delta=told * 1e-5 + 1e-5, msg=phase)
        # The log's queue begins with the call, Finished's when its message has
        # been read and checked.
        self.assertGreaterEqual(duration_ms(children["queue"]),
                                times.queue_ms * (1 - 1e-5))

    def test_a_request_within_a_client_s_trace(self):
        before = time.time_ns()
        answers, request_id = self.analyze()
        after = time.time_ns()
        root, children = self.spans_of(request_id)
        self.assertEqual(root.trace_id.hex(), TRACE)
        self.assertEqual(root.parent_span_id.hex(), PARENT)
        self.assertEqual(root.kind, trace_pb2.Span.SPAN_KIND_SERVER)
        self.assertGreaterEqual(root.start_time_unix_nano,
                                before - 2 * MILLISECOND)
        self.assertLessEqual(root.end_time_unix_nano, after + MILLISECOND)
        finished = answers[-1].finished
        self.assert_phases(root, children, finished.times)
        self.assertEqual(attributes(root), {
            "rpc.system.name": "grpc",
            "rpc.method": "qkscope.v1.Analysis/Analyze",
            "rpc.response.status_code": "OK", "user.name": "anonymous",
            "gen_ai.provider.name": "qkscope", "gen_ai.request.model": "tiny",
            "gen_ai.usage.input_tokens": 6, "gen_ai.usage.output_tokens": 8,
            "qkscope.arms": 2})

    def test_a_kept_request(self):
        answers, request_id = self.analyze(fields={"resumable": True})
        root, children = self.spans_of(request_id)
        self.assertEqual(root.trace_id.hex(), TRACE)
        (kept,) = wait_until(
            lambda: [span for span in self.receiver.spans
                     if span.name == "kept run"
                     and span.parent_span_id == root.span_id], "the kept run")
        self.assertEqual(kept.trace_id.hex(), TRACE)
        below = {span.name: span for span in self.receiver.spans
                 if span.parent_span_id == kept.span_id}
        self.assert_phases(kept, below, answers[-1].finished.times)
        self.assertNotIn("prefill", children)

    def test_a_client_that_does_not_sample(self):
        _, without = self.analyze(sampled=False)
        _, request_id = self.analyze()
        self.spans_of(request_id)
        self.assertEqual(
            self.receiver.named(bytes.fromhex(without.partition("-")[0])), [])

    def test_a_request_without_a_trace_and_one_that_fails(self):
        prompt = ["--token-ids", "3,1,41", "--arm", "clean"]
        done = self.server.qkctl("analyze", "--model", "tiny", *prompt)
        self.assertEqual(done.returncode, 0, done.stderr)
        failed = self.server.qkctl("analyze", "--model", "none", *prompt)
        self.assertEqual(failed.returncode, 5, failed.stderr)

        def roots(code):
            return [span for span in self.receiver.spans
                    if span.kind == trace_pb2.Span.SPAN_KIND_SERVER
                    and not span.parent_span_id
                    and attributes(span)["rpc.response.status_code"] == code
                    and attributes(span)["rpc.method"].endswith("/Analyze")]

        wait_until(lambda: roots("OK") and roots("NOT_FOUND"),
                   lambda: str(self.receiver.spans))
        (good,), (bad,) = roots("OK"), roots("NOT_FOUND")
        self.assertNotEqual(good.trace_id, bad.trace_id)
        # The client's fault.
        self.assertEqual(bad.status.code, trace_pb2.Status.STATUS_CODE_UNSET)


def main():
    programs.end_on_sigterm()
    programs.unittest.main()


if __name__ == "__main__":
    main()
