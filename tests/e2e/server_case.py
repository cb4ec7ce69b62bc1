"""A test case with its own servers, requests for them, and raw connections."""

import json
import pathlib
import resource
import subprocess
import unittest

from processes import (PATIENT, ROOT, TINY_MODEL, Server, metrics, qkctl,
                       scratch_folder, wait_until)
from raw_grpc import Connection, connect

ANALYZE = "/qkscope.v1.Analysis/Analyze"
SMALL = ["analyze", "--model", "tiny", "--token-ids", "3,1,41,59"]
MIB = 1 << 20


def encoded(text):
    """Encodes an AnalyzeRequest that is given as text proto."""
    return subprocess.run(
        ["protoc", "-I", ROOT / "proto", "--encode=qkscope.v1.AnalyzeRequest",
         ROOT / "proto/qkscope/v1/analysis.proto"], input=text.encode(),
        capture_output=True, check=True).stdout


def request(tokens, capture, arms=1, model="tiny"):
    ids = " ".join(f"ids: {1 + i % 90}" for i in range(tokens))
    names = " ".join(f"arms {{name: 'a{i}'}}" for i in range(arms))
    return encoded(f"model: '{model}' input {{token_ids {{{ids}}}}} {names} "
                   f"capture {{{capture}}}")


class ServerCase(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        # This process and the server need a thousand connections each.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, config=PATIENT, models=None, server_class=Server, **more):
        file = self.folder / "q.conf"
        file.write_text(config)
        server = server_class(models or {"tiny": TINY_MODEL}, "--config", file,
                              **more)
        self.addCleanup(server.stop)
        return server

    def connection(self, server):
        out = Connection(connect(server.address))
        self.addCleanup(out.close)
        return out

    def await_metrics(self, server, what, done):
        def values_when_done():
            values = metrics(server)
            return values if done(values) else None
        return wait_until(values_when_done, what)

    def await_idle(self, server):
        """Waits until every call has ended and left nothing behind."""
        return self.await_metrics(server, "calls", lambda values: (
            sum(values["qkscope_rpc_started_total"].values())
            == sum(values["qkscope_rpc_handled_total"].values())
            and not any(values[gauge][""] for gauge in [
                "qkscope_queued_requests", "qkscope_running_requests",
                "qkscope_stream_buffered_bytes",
                "qkscope_stream_reserved_bytes"])))

    def await_device(self, server):
        """Waits until the engine has finished all requests."""
        return self.await_metrics(server, "the engine", lambda values: (
            values["qkscope_queued_requests"][""] == 0
            and values["qkscope_running_requests"][""] == 0))

    def await_call(self, server, code):
        """Waits until the log has a call that ended with this code."""
        def ended():
            return next((entry for entry in map(json.loads, list(server.log))
                         if entry["event"] == "rpc" and entry["code"] == code),
                        None)
        return wait_until(ended, server.log_text)

    def live(self, values):
        return (sum(values["qkscope_rpc_started_total"].values())
                - sum(values["qkscope_rpc_handled_total"].values()))

    def stalled_readers(self, server, count, message, headers=()):
        """Returns connections that have each read the beginning of an answer,
        and their streams."""
        out = []
        for _ in range(count):
            connection = self.connection(server)
            out.append((connection, connection.start(ANALYZE, message,
                                                     headers)))
        for connection, _ in out:
            connection.await_data()
        return out

    def serves(self, server, token=None):
        result = qkctl(server, *SMALL, token=token)
        self.assertEqual(result.returncode, 0, result.stderr)
