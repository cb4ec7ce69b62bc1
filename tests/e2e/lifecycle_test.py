"""Tests a server's life from outside: floods, systemd, signals, kills."""

import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

import grpc

from certificates import Authority
from processes import BIN, PATIENCE_S, PATIENT, ROOT, TINY_MODEL
from processes import GatedServer, Server
from processes import Stalled, metrics, open_files, qkctl, scratch_folder
from processes import wait_until
from stubs import analysis, analysis_grpc, error

IDS = ["--model", "tiny", "--token-ids", "3,1,41,59"]
HERE = "DNS:localhost,IP:127.0.0.1"
UNIT = ROOT / "deploy" / "systemd" / "qkscoped.service"


def connect_many(address, count):
    host, port = address.rsplit(":", 1)
    return [socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            for _ in range(count)]


def with_few_descriptors(command):
    """Returns the command, to run under a limit of 64 descriptors."""
    return ["bash", "-c", "ulimit -n 64; exec \"$0\" \"$@\"", *command]


class WallClock:
    """A wall clock that a test sets, for a server with this environment."""

    def __init__(self, folder):
        self._file = pathlib.Path(folder) / "wall_clock"
        self._file.write_bytes(bytes(8))
        self.environment = {
            **os.environ, "LD_PRELOAD": str(BIN / "wall_clock.so"),
            "QK_WALL_CLOCK": str(self._file),
            # Otherwise it refuses to run behind the preloaded library.
            "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def set_ahead(self, seconds):
        with open(self._file, "r+b") as file:
            file.write(struct.pack("<q", seconds))


class NotifySocket:
    """The socket that systemd would listen on."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.name = (address if isinstance(address, str)
                     else "@" + address[1:].decode())
        self.told = []

    def environment(self, **more):
        return {**os.environ, "NOTIFY_SOCKET": self.name, **more}

    def await_state(self, state, times=1, patience=PATIENCE_S):
        """Returns whether the server has sent the state often enough."""
        deadline = time.monotonic() + patience
        while self.told.count(state) < times:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self.told.append(self.socket.recv(4096).decode())
            except TimeoutError:
                return False
        return True

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()


class FloodTest(unittest.TestCase):
    def flood(self, server):
        """Opens 300 silent connections; then the server must serve again."""
        flood = connect_many(server.address, 300)
        server.await_log("connections_shed")
        for connection in flood:
            connection.close()
        # New connections may be shed until the server notices this.
        wait_until(lambda: qkctl(server, "analyze", *IDS).returncode == 0,
                   server.log_text)

    def test_s1_300_connections_at_64_descriptors(self):
        with Server({"tiny": TINY_MODEL}, wrap=with_few_descriptors) as server:
            for _ in range(2):
                self.flood(server)

    def test_s1_the_same_with_tls(self):
        with scratch_folder() as folder:
            authority = Authority(pathlib.Path(folder), "ca")
            pair = authority.issue("server", "qkscoped", HERE)
            with Server({"tiny": TINY_MODEL}, "--tls-cert", pair.cert,
                        "--tls-key", pair.key, wrap=with_few_descriptors,
                        client_flags=["--tls-ca", authority.cert]) as server:
                self.flood(server)

    def test_s1_calls_in_progress_go_on(self):
        with Server({"tiny": TINY_MODEL}, wrap=with_few_descriptors) as server:
            with Stalled(server) as stream:
                flood = connect_many(server.address, 300)
                server.await_log("connections_shed")
                stream.release()
                code, events, err = stream.finish()
                self.assertEqual(code, 0, err)
                self.assertIn("finished", events[-1])
                for connection in flood:
                    connection.close()


class SystemdTest(unittest.TestCase):
    def test_ready_and_stopping(self):
        with scratch_folder() as folder:
            for address in (str(pathlib.Path(folder) / "notify"),
                            b"\0qkscope-test-%d" % os.getpid()):
                with NotifySocket(address) as notify, \
                        Server({"tiny": TINY_MODEL},
                               environment=notify.environment()) as server:
                    self.assertTrue(notify.await_state("READY=1"))
                    self.assertNotIn("STOPPING=1", notify.told)
                    server.send_signal(signal.SIGTERM)
                    self.assertTrue(notify.await_state("STOPPING=1"))
                    self.assertEqual(server.wait(), 0)
                    self.assertNotIn("WATCHDOG=1", notify.told)

    def test_the_watchdog_hears_of_answers_only(self):
        with scratch_folder() as folder, \
                NotifySocket(str(pathlib.Path(folder) / "notify")) as notify:
            environment = notify.environment(WATCHDOG_USEC="2000000")
            with Server({"tiny": TINY_MODEL}, wrap=with_few_descriptors,
                        environment=environment) as server:
                self.assertTrue(notify.await_state("WATCHDOG=1", 3))
                # A flood must not get a working server killed.
                flood = connect_many(server.address, 300)
                server.await_log("connections_shed")
                seen = notify.told.count("WATCHDOG=1")
                self.assertTrue(notify.await_state("WATCHDOG=1", seen + 3))
                for connection in flood:
                    connection.close()

    def test_another_process_is_meant(self):
        with scratch_folder() as folder, \
                NotifySocket(str(pathlib.Path(folder) / "notify")) as notify:
            environment = notify.environment(WATCHDOG_USEC="100000",
                                             WATCHDOG_PID="1")
            with Server({"tiny": TINY_MODEL},
                        environment=environment) as server:
                self.assertTrue(notify.await_state("READY=1"))
                server.send_signal(signal.SIGTERM)
                self.assertTrue(notify.await_state("STOPPING=1"))
                self.assertEqual(server.wait(), 0)
                # The first check would have come before READY.
                self.assertNotIn("WATCHDOG=1", notify.told)

    def test_with_client_certificates(self):
        with scratch_folder() as folder, \
                NotifySocket(str(pathlib.Path(folder) / "notify")) as notify:
            authority = Authority(pathlib.Path(folder), "ca")
            pair = authority.issue("server", "qkscoped", HERE)
            mine = authority.issue("mine", "alice")
            with Server({"tiny": TINY_MODEL}, "--tls-cert", pair.cert,
                        "--tls-key", pair.key, "--tls-client-ca",
                        authority.cert,
                        # The first check has 100 s, more than it ever takes.
                        environment=notify.environment(
                            WATCHDOG_USEC="400000000"),
                        client_flags=["--tls-ca", authority.cert,
                                      "--tls-cert", mine.cert,
                                      "--tls-key", mine.key]) as server:
                self.assertTrue(notify.await_state("WATCHDOG=1"))
                self.assertNotIn('"watchdog', server.log_text())
                # A client without a certificate is still refused.
                plain = qkctl(server.address, "health")
                self.assertNotEqual(plain.returncode, 0)

    def test_the_unit_file(self):
        text = UNIT.read_text()
        for line in ("Type=notify", "Restart=on-failure",
                     "RestartPreventExitStatus=78"):
            self.assertIn(line + "\n", text)
        timeout = int(text.split("TimeoutStopSec=")[1].split()[0])
        self.assertGreater(timeout, 30)  # shutdown_grace_s
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed")
        result = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager",
             "--threshold=20", UNIT], capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class KeptResultsTest(unittest.TestCase):
    REQUEST = analysis.AnalyzeRequest(
        model="tiny", input={"token_ids": {"ids": [3, 1, 41, 59]}},
        detach=True)

    def start(self, folder):
        return Server({"tiny": TINY_MODEL}, "--spool",
                      pathlib.Path(folder) / "spool",
                      wrap=with_few_descriptors)

    def read(self, stub, request):
        return len(list(stub.GetResult(
            analysis.GetResultRequest(request_id=request))))

    def test_r22_300_results_at_64_descriptors(self):
        count = 300
        with scratch_folder() as folder:
            with self.start(folder) as server, \
                    grpc.insecure_channel(server.address) as channel:
                before = open_files(server.process.pid)
                stub = analysis_grpc.AnalysisStub(channel)
                events = {}
                for _ in range(count):
                    request = next(iter(stub.Analyze(
                        self.REQUEST))).accepted.request_id
                    events[request] = self.read(stub, request)
                self.assertLess(open_files(server.process.pid), before + 10)
                self.assertEqual(qkctl(server, "health").returncode, 0)
                self.assertEqual(metrics(server)["qkscope_kept_results"][""],
                                 count)
                server.send_signal(signal.SIGKILL)
                server.wait()
            # A new server has them all, and holds nothing for them.
            with self.start(folder) as server, \
                    grpc.insecure_channel(server.address) as channel:
                self.assertLess(open_files(server.process.pid), before + 10)
                stub = analysis_grpc.AnalysisStub(channel)
                for request, number in events.items():
                    self.assertEqual(self.read(stub, request), number)
                usage = stub.GetUsage(analysis.GetUsageRequest())
                self.assertEqual(usage.users[0].kept_results, count)
                self.assertIn(f"{count} of 10000",
                              qkctl(server, "usage").stdout)

    def refusal(self, call):
        """Returns an error's code and message, and after how many seconds it
        says to try again, if it does."""
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        delay = None
        for key, value in caught.exception.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            for detail in error.RpcStatus.FromString(value).details:
                if detail.type_url.endswith("RetryInfo"):
                    delay = error.RetryInfo.FromString(
                        detail.value).retry_delay.seconds
        return caught.exception.code(), caught.exception.details(), delay

    def test_r34_a_full_disk_says_when_to_try_again(self):
        with scratch_folder() as folder:
            folder = pathlib.Path(folder).resolve()
            spool, full = folder / "spool", folder / "full"
            environment = {
                **os.environ, "LD_PRELOAD": str(BIN / "fail_io.so"),
                "FAIL_IO_CALL": "pwrite", "FAIL_IO_FILE": str(spool),
                "FAIL_IO_ERRNO": str(errno.ENOSPC), "FAIL_IO_WHILE": str(full),
                "ASAN_OPTIONS": "verify_asan_link_order=0"}
            with GatedServer({"tiny": TINY_MODEL}, "--spool", spool,
                             environment=environment) as server, \
                    grpc.insecure_channel(server.address) as channel:
                stub = analysis_grpc.AnalysisStub(channel)
                # The disk is full before the request, and while it runs.
                full.touch()
                refused = self.refusal(stub.Analyze(self.REQUEST))
                full.unlink()
                server.shut()
                request = next(iter(stub.Analyze(
                    self.REQUEST))).accepted.request_id
                server.await_held()
                full.touch()
                server.open()
                result = stub.GetResult(
                    analysis.GetResultRequest(request_id=request))
                for answer in (refused, self.refusal(result)):
                    self.assertEqual(
                        answer, (grpc.StatusCode.RESOURCE_EXHAUSTED,
                                 "spool: cannot write: No space left on device",
                                 30))
                self.assertGreaterEqual(
                    metrics(server)["qkscope_spool_errors_total"][""], 2)
                server.await_log('"spool_failed"')
                full.unlink()
                request = next(iter(stub.Analyze(
                    self.REQUEST))).accepted.request_id
                self.assertGreater(self.read(stub, request), 0)

    def test_r34_a_folder_that_has_gone(self):
        with scratch_folder() as folder:
            spool = pathlib.Path(folder) / "spool"
            with self.start(folder) as server, \
                    grpc.insecure_channel(server.address) as channel:
                stub = analysis_grpc.AnalysisStub(channel)
                request = next(iter(stub.Analyze(
                    self.REQUEST))).accepted.request_id
                self.read(stub, request)
                # 16 newer results, so that the file is not open any more.
                for _ in range(16):
                    self.read(stub, next(iter(stub.Analyze(
                        self.REQUEST))).accepted.request_id)
                spool.rename(spool.with_name("gone"))
                gone = self.refusal(stub.GetResult(
                    analysis.GetResultRequest(request_id=request)))
                self.assertEqual(gone, (grpc.StatusCode.NOT_FOUND,
                                        "request_id: no such result", None))
                server.await_log('"spool_failed"')
                self.assertGreaterEqual(
                    metrics(server)["qkscope_spool_errors_total"][""], 1)

                def works():
                    try:
                        return list(stub.Analyze(self.REQUEST))
                    except grpc.RpcError as failed:
                        self.assertEqual(failed.code(),
                                         grpc.StatusCode.UNAVAILABLE)
                        return None
                # The server makes a new folder.
                wait_until(works, server.log_text)
                self.assertTrue((spool / "lock").exists())

    def test_r29_a_day_ahead_and_back(self):
        day = 86400
        with scratch_folder() as folder:
            clock = WallClock(folder)
            with Server({"tiny": TINY_MODEL}, "--spool",
                        pathlib.Path(folder) / "spool",
                        environment=clock.environment) as server, \
                    grpc.insecure_channel(server.address) as channel, \
                    Stalled(server) as stream:
                stub = analysis_grpc.AnalysisStub(channel)
                requests = []
                for ahead in (0, day, 0, -day, 0):
                    clock.set_ahead(ahead)
                    event = next(iter(stub.Analyze(self.REQUEST, timeout=900)))
                    requests.append(event.accepted.request_id)
                    self.assertEqual(len({self.read(stub, request)
                                          for request in requests}), 1)
                    listed = stub.ListRequests(
                        analysis.ListRequestsRequest()).requests
                    finished = [one for one in listed
                                if one.request_id in requests]
                    self.assertEqual([one.request_id for one in finished],
                                     requests)
                    # In order of arrival, the eldest first.
                    ages = [one.age_ms for one in finished]
                    self.assertEqual(ages, sorted(ages, reverse=True))
                    for one in listed:
                        self.assertGreaterEqual(one.age_ms, 0)
                        self.assertLess(one.age_ms, PATIENCE_S * 1000)
                    for one in finished:
                        self.assertLessEqual(one.expires_in_ms, 3600 * 1000)
                        self.assertGreater(one.expires_in_ms,
                                           (3600 - PATIENCE_S) * 1000)
                # A stream has waited for its reader all the time.
                stream.release()
                code, events, err = stream.finish()
                self.assertEqual(code, 0, err)
                self.assertIn("finished", events[-1])
                times = events[-1]["finished"]["times"]
                for name, value in times.items():
                    self.assertGreaterEqual(value, 0, name)
                    self.assertLess(value, PATIENCE_S * 1000, name)


class StoppingTest(unittest.TestCase):
    def config(self, folder, text):
        path = pathlib.Path(folder) / "q.conf"
        path.write_text(PATIENT + text)
        return path

    def test_r17_health_at_once(self):
        with scratch_folder() as folder:
            path = self.config(folder, "shutdown_grace_s: 3600")
            with Server({"tiny": TINY_MODEL}, "--config", path) as server, \
                    Stalled(server) as stream:
                server.send_signal(signal.SIGTERM)
                server.await_log('"draining"')
                self.assertEqual(qkctl(server, "health").returncode, 3)
                # Health itself says so; the process is still running.
                self.assertIsNone(server.process.poll())
                stream.release()
                self.assertEqual(stream.finish()[0], 0)
                self.assertEqual(server.wait(), 0)

    def test_r17_the_grace_period(self):
        with scratch_folder() as folder:
            path = self.config(folder, "shutdown_grace_s: 2")
            with Server({"tiny": TINY_MODEL}, "--config", path) as server, \
                    Stalled(server) as stream:
                start = time.monotonic()
                server.send_signal(signal.SIGTERM)
                # The server does not wait for the endless stream.
                self.assertEqual(server.wait(), 0)
                self.assertGreaterEqual(time.monotonic() - start, 2)
                stream.release()
                self.assertNotEqual(stream.finish()[0], 0)

    def test_r17_during_a_load(self):
        with scratch_folder() as folder:
            path = self.config(folder, "shutdown_grace_s: 1")
            command = [BIN / "qkscoped", "--listen", "127.0.0.1:0",
                       "--metrics-listen", "", "--config", path]
            for i in range(40):
                command += ["--model", f"m{i}={TINY_MODEL}"]
            process = subprocess.Popen(command, stderr=subprocess.PIPE)
            for raw in process.stderr:
                if json.loads(raw)["event"] == "listening":
                    break
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read().decode()
            self.assertEqual(process.wait(PATIENCE_S), 0, rest)
            self.assertIn('"stopped"', rest)
            process.stderr.close()


class KilledTest(unittest.TestCase):
    def start(self, spool):
        return Server({"tiny": TINY_MODEL}, "--spool", spool)

    def test_r18_ten_kills_under_load(self):
        with scratch_folder() as folder:
            spool = pathlib.Path(folder) / "spool"
            finished = []
            for _ in range(10):
                with self.start(spool) as server:
                    # The result finished before the kill is still whole.
                    for request, text in finished[-1:]:
                        result = qkctl(server, "result", request, "--json")
                        self.assertEqual(result.returncode, 0, result.stderr)
                        self.assertIn("finished", json.loads(
                            result.stdout.splitlines()[-1]))
                        self.assertEqual(self.layers(result.stdout), text)
                    request = self.detach(server, 4)
                    result = qkctl(server, "result", request, "--json")
                    self.assertEqual(result.returncode, 0, result.stderr)
                    finished.append((request, self.layers(result.stdout)))
                    # There are six frames, and the manifest with their digests.
                    self.assertEqual(len(finished[-1][1]), 6 + 1)
                    half = [self.detach(server, 200) for _ in range(4)]
                    with Stalled(server):
                        server.send_signal(signal.SIGKILL)
                        self.assertEqual(server.wait(), -signal.SIGKILL)
                with self.start(spool) as server:
                    for request in half:
                        result = qkctl(server, "result", request, "--json")
                        if result.returncode != 0:
                            self.assertNotIn('"finished"', result.stdout)
                            continue
                        # The request was finished before the kill.
                        self.assertIn('"finished"', result.stdout)
            self.assertEqual(len(finished), 10)

    @staticmethod
    def layers(text):
        return [line for line in text.splitlines() if '"layer"' in line]

    def detach(self, server, new_tokens):
        result = qkctl(server, "analyze", *IDS, "--detach",
                       "--max-new-tokens", new_tokens)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.split()[0]


if __name__ == "__main__":
    sys.exit(unittest.main())
