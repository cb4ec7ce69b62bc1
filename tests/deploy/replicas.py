"""Three real replicas, and what must hold of them behind any balancer:
haproxy_check.py and envoy_check.py start the balancers."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ["QK_BIN_DIR"] = os.environ["QK_BIN"]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
# pylint: disable=wrong-import-position
import raw_grpc
from certificates import Authority, client_context, client_flags, tls_connect
from processes import (PATIENT, TINY_MODEL, Server, Stalled, metrics, qkctl,
                       resident_bytes, wait_until)

NAMES = "abc"
SHORT = ["analyze", "--model", "tiny", "--token-ids", "1,2,3", "--arm",
         "clean", "--arm", "top_k:1"]
INFO = "/qkscope.v1.Analysis/GetServerInfo"
EXIT_UNAVAILABLE, EXIT_NOT_FOUND, EXIT_INCOMPLETE = 3, 5, 7


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def check(condition, what):
    if not condition:
        raise AssertionError(what() if callable(what) else what)


def ok(result):
    check(result.returncode == 0, lambda: f"{result.args}\n{result.stderr}")
    return result.stdout


def layers(text):
    return [line for line in text.splitlines() if '"layer":{' in line]


def replica_of(request_id):
    return request_id.partition("-")[2]


class Replicas:
    """The replicas a, b and c, by name. `address` and `client_flags`: the
    balancer's, for qkctl."""

    def __init__(self, folder, stack):
        self.folder = folder
        self._stack = stack
        self._config = folder / "q.conf"
        self._config.write_text(PATIENT + "shutdown_grace_s: 3600")
        self.servers = {}
        for name in NAMES:
            self.start(name)
        ours = Authority(folder, "ours")
        self.proxy_pair = ours.issue("proxy", "proxy",
                                     "DNS:localhost,IP:127.0.0.1")
        self.authority = ours
        self.client = ours.issue("client", "alice")
        self.client_flags = client_flags(ours, self.client)
        self.address = free_address()

    def start(self, name):
        """Starts a replica, again at the address and spool that it had."""
        known = self.servers.get(name)
        self.servers[name] = server = Server(
            {"tiny": TINY_MODEL}, "--config", self._config, "--spool",
            self.folder / f"spool-{name}", "--replica", name,
            listen=known.address if known else "127.0.0.1:0")
        self._stack.callback(server.stop, signal.SIGKILL)

    def call(self, *arguments):
        return qkctl(self, *arguments)

    def stalled(self, *flags):
        """Starts streams until each replica has one that has stalled in the
        middle; returns them by the replica's name, with their ids."""
        found = {}
        while len(found) < len(NAMES):
            client = self._stack.enter_context(Stalled(self, *flags))
            check(client.events and "accepted" in client.events[0],
                  lambda: client.finish()[2])
            request = client.events[0]["accepted"]["request_id"]
            if replica_of(request) in found:
                client.__exit__()
            else:
                found[replica_of(request)] = client, request
        return found

    def await_calls_to(self, name):
        """Waits until the balancer sends calls to this replica."""
        wait_until(lambda: replica_of(self.one_id()) == name,
                   f"a call to replica {name}")

    def one_id(self):
        return json.loads(ok(self.call(*SHORT, "--json")).splitlines()[0])[
            "accepted"]["request_id"]


def check_results_are_found(replicas):
    """A kept result is found, from every connection, at the replica that has
    it, and there alone."""
    direct = layers(ok(replicas.call(*SHORT, "--json")))
    check(len(direct) > 5, "no layers")
    ids = {}
    while len(ids) < len(NAMES):
        request = ok(replicas.call(*SHORT, "--detach")).strip()
        ids[replica_of(request)] = request
    for name, request in ids.items():
        for _ in range(3):
            kept = ok(replicas.call("result", request, "--json"))
            check(layers(kept) == direct, f"{request} has other bytes")
        for other in set(NAMES) - {name}:
            missing = qkctl(replicas.servers[other], "result", request)
            check(missing.returncode == EXIT_NOT_FOUND, missing.stderr)
        ok(replicas.call("cancel", request))
        gone = replicas.call("result", request)
        check(gone.returncode == EXIT_NOT_FOUND, gone.stderr)
    # A name that no replica has.
    unknown = replicas.call("result", "0123456789abcdef-nobody")
    check(unknown.returncode == EXIT_NOT_FOUND, unknown.stderr)
    print("a detached result is found through the balancer")


def check_a_drain_loses_nothing(replicas, retries):
    """No call is lost that is tried again `retries` times by its client."""
    streams = replicas.stalled()
    drained = replicas.servers["a"]
    ended = threading.Event()

    def keep_calling():
        codes = []
        while not ended.is_set():
            result = replicas.call(*SHORT, "--retries", retries)
            codes.append((result.returncode, result.stderr))
        return codes

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(keep_calling) for _ in range(2)]
        try:
            drained.send_signal(signal.SIGTERM)
            drained.await_log("draining")
            for _ in range(10):
                ok(replicas.call(*SHORT, "--retries", retries))
        finally:
            ended.set()
        calls = [code for caller in callers for code in caller.result()]
    lost = [call for call in calls if call[0] != 0]
    check(not lost, lambda: f"{len(lost)} of {len(calls)} calls: {lost[0]}")
    check(drained.process.poll() is None, "the drain did not wait")
    for client, _ in streams.values():
        client.release()
    for name, (client, _) in streams.items():
        code, events, err = client.finish()
        check(code == 0 and "finished" in events[-1], f"{name}: {err}")
    check(drained.wait() == 0, drained.log_text)
    print(f"drain: 3 streams and {len(calls) + 10} calls with {retries} "
          "retries, none lost")
    replicas.start("a")
    replicas.await_calls_to("a")


def check_a_kill_ends_only_its_streams(replicas):
    streams = replicas.stalled()
    replicas.servers["b"].send_signal(signal.SIGKILL)
    replicas.servers["b"].wait()
    for _ in range(20):
        check(replica_of(replicas.one_id()) in "ac", "a call to replica b")
    for name, (client, _) in streams.items():
        client.release()
        code, _, err = client.finish()
        check(code == (EXIT_INCOMPLETE if name == "b" else 0),
              f"{name}: {code}: {err}")
    print("kill -9: its stream failed; two others and the next 20 calls did "
          "not")
    replicas.start("b")
    replicas.await_calls_to("b")


def check_a_stream_is_taken_up(replicas):
    """The replica that has a stream's result is killed and comes back; the
    client gets the rest through the balancer."""
    out = replicas.folder / "resumed.safetensors"
    streams = replicas.stalled("--resumable", "--retries", "50", "--out", out)
    for name in "ab":
        streams[name][0].__exit__()
    client, request = streams["c"]
    server = replicas.servers["c"]

    def kept():
        requests = json.loads(ok(qkctl(server, "queue", "--json")))["requests"]
        return any(entry["request_id"] == request
                   and entry["state"] == "FINISHED" for entry in requests)

    wait_until(kept, "the end of the request")
    server.send_signal(signal.SIGKILL)
    server.wait()
    client.release()
    # While it is down, no other replica says that there is no such result.
    for _ in range(3):
        down = replicas.call("result", request)
        check(down.returncode == EXIT_UNAVAILABLE, down.stderr)
    replicas.start("c")
    back = time.monotonic()
    code, events, err = client.finish()
    check(code == 0 and "finished" in events[-1], err)
    print(f"resume: done {time.monotonic() - back:.1f} s after the replica "
          "served again")
    passes = metrics(replicas.servers["c"])["qkscope_passes_total"]
    check(sum(passes.values()) == 0, "the replica computed it again")
    resumed = [event["layer"] for event in events if "layer" in event]
    whole = [json.loads(line)["layer"] for line in layers(
        ok(replicas.call("result", request, "--json")))]
    check(len(whole) > 100 and resumed == whole, "other bytes than those kept")
    ok(replicas.call("replay", out))


def check_floods_stop(replicas):
    def calls():
        return sum(sum(metrics(server)["qkscope_rpc_started_total"].values())
                   for server in replicas.servers.values())

    def connect():
        return tls_connect(replicas.address, client_context(
            replicas.authority, replicas.client))

    hello = raw_grpc.PREFACE + raw_grpc.frame(raw_grpc.SETTINGS, 0, 0, b"")
    before = calls()
    # Headers that unpack from 16 KiB to 48 MB.
    bomb = (b"\x40" + raw_grpc.string(b"x-bomb")
            + raw_grpc.string(b"b" * 4000) + b"\xbe" * 12_000)
    for _ in range(10):
        with connect() as connection:
            connection.sendall(hello + raw_grpc.frame(
                raw_grpc.HEADERS, raw_grpc.END_HEADERS, 1,
                raw_grpc.call_headers(INFO) + bomb))
            with contextlib.suppress(ConnectionError):
                kind = None
                while kind not in (raw_grpc.GOAWAY, raw_grpc.RST_STREAM,
                                   raw_grpc.HEADERS):
                    kind, *_ = raw_grpc.read_frame(connection)
    check(calls() == before, "a bomb reached a replica")
    memory = [resident_bytes(server.process.pid)
              for server in replicas.servers.values()]
    cancel = raw_grpc.CANCEL.to_bytes(4, "big")
    for _ in range(5):
        with contextlib.suppress(OSError), connect() as connection:
            connection.sendall(hello)
            for stream in range(1, 4001, 2):
                connection.sendall(
                    raw_grpc.frame(raw_grpc.HEADERS, raw_grpc.END_HEADERS,
                                   stream, raw_grpc.call_headers(INFO))
                    + raw_grpc.frame(raw_grpc.RST_STREAM, 0, stream, cancel))
    # The flooding address may be shut out for a moment.
    wait_until(lambda: replicas.call(*SHORT).returncode == 0, "the flood")
    for server, was in zip(replicas.servers.values(), memory):
        check(resident_bytes(server.process.pid) - was < 64 << 20,
              "a flood of resets reached a replica")
    print("floods of headers and resets stop at the balancer")


def run(start_balancer, retries_while_draining):
    """Starts the replicas and, with start_balancer(replicas, stack), their
    balancer, which `stack` ends, and checks all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(
            dir=os.environ.get("QK_WORK")))
        replicas = Replicas(pathlib.Path(folder), stack)
        balancer = start_balancer(replicas, stack)
        wait_until(lambda: balancer.poll() is not None
                   or replicas.call(*SHORT).returncode == 0, "the balancer")
        check(balancer.poll() is None, "the balancer did not start")
        for name in NAMES:
            replicas.await_calls_to(name)
        check_results_are_found(replicas)
        check_a_drain_loses_nothing(replicas, retries_while_draining)
        check_a_kill_ends_only_its_streams(replicas)
        check_a_stream_is_taken_up(replicas)
        check_floods_stop(replicas)
