"""Clients of mixed_soak_test.py whose every answer is compared with the one
that the same request gets alone."""

import os
import pathlib
import random
import signal
import threading
import time

import grpc

from holding_proxy import HoldingProxy
from mixed_requests import User, analysis_lines
from processes import write_whole
from stubs import admin, admin_grpc, analysis

_SERVING = b"\x08\1"  # A HealthCheckResponse.


def asks(crowd, kind, user, key, number=0, timeout=None, excused=()):
    """Asks for one answer after the other."""
    client = crowd.user(user)
    requests = len(crowd.asked[key])
    crowd.repeat(lambda i: crowd.judge(
        kind, client, key, (i + number) % requests, timeout, excused),
        lambda: crowd.counted(kind))
    client.close()


def poor(crowd, kind, user, key, timeout=None):
    """Has a small budget, and asks for more."""
    client = crowd.user(user)
    requests = len(crowd.asked[key])
    crowd.repeat(
        lambda i: crowd.judge(kind, client, key, i % requests, timeout,
                              ("DEADLINE_EXCEEDED",)),
        lambda: crowd.counted(kind) and crowd.counted(kind, "refused"))
    client.close()


def probe(crowd, kind, user):
    """Asks, reads, thinks, and asks again; the times are kept."""
    client = crowd.user(user)

    def step(_):
        start = time.monotonic()
        crowd.judge(kind, client, "small", 0)
        crowd.times.append(time.monotonic() - start)
        crowd.pause(0.02)

    crowd.repeat(step, lambda: crowd.counted(kind))
    client.close()


# ------------------------------------------------------------- kept results

def _accepted(events):
    return next(events).accepted.request_id


def _result(client, name, from_seq=0):
    return client.stub.GetResult(
        analysis.GetResultRequest(request_id=name, from_seq=from_seq),
        metadata=client.metadata)


def _cancel(crowd, kind, client, name):
    try:
        client.stub.Cancel(analysis.CancelRequest(request_id=name),
                           metadata=client.metadata)
        crowd.count(kind, "deleted")
    except grpc.RpcError as failure:
        crowd.failed(kind, failure)


def detached(crowd, kind, user, number):
    """Keeps results, reads some of them, and deletes them in the end."""
    client = crowd.user(user)
    draw = random.Random(number)
    kept = []

    def step(_):
        index = draw.randrange(len(crowd.asked["analyze"]))
        request = analysis.AnalyzeRequest()
        request.CopyFrom(crowd.asked["analyze"][index][1])
        request.detach = True
        try:
            kept.append((index, _accepted(client.call("Analyze", request))))
            index, name = draw.choice(kept)
            if draw.random() < 0.7:
                crowd.compare(kind, "analyze", index,
                              analysis_lines(_result(client, name)))
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)
        # A user may keep four results.
        while kept and draw.random() < 0.4:
            _cancel(crowd, kind, client, kept.pop(
                draw.randrange(len(kept)))[1])

    crowd.repeat(step, lambda: crowd.counted(kind))
    for _, name in kept:
        _cancel(crowd, kind, client, name)
    client.close()


class _Cutter:
    """A way to the server that is cut once in the middle of an answer."""

    def __init__(self, address, limit):
        self.proxy = HoldingProxy(address, [limit])
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        while not self._done.is_set():
            if self.proxy.await_held(0.1):
                self.proxy.cut()
                return

    def close(self):
        self._done.set()
        self._thread.join()
        self.proxy.close()


def resumes(crowd, kind, user, number):
    """Loses the connection in the middle of an answer, and takes it up."""
    direct = crowd.user(user)
    draw = random.Random(number)

    def step(_):
        index = draw.randrange(len(crowd.asked["analyze"]))
        request = analysis.AnalyzeRequest()
        request.CopyFrom(crowd.asked["analyze"][index][1])
        request.resumable = True
        cutter = _Cutter(crowd.address, draw.choice([700, 1500, 6000]))
        client = User(cutter.proxy.address, crowd.tokens[user])
        name, events = None, []
        try:
            stream = client.call("Analyze", request)
            name = _accepted(stream)
            events += [e for e in stream if not e.HasField("accepted")]
            crowd.count(kind, "whole")
        except grpc.RpcError as failure:
            if failure.code() == grpc.StatusCode.UNAVAILABLE:
                crowd.count(kind, "cut" if name else "cut at once")
            else:
                crowd.failed(kind, failure)
                name = None
        finally:
            client.close()
            cutter.close()
        if name is None:
            return
        try:
            if not events or not events[-1].HasField("finished"):
                events += [e for e in _result(direct, name, len(events))
                           if not e.HasField("accepted")]
            crowd.compare(kind, "analyze", index, analysis_lines(events))
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)
        _cancel(crowd, kind, direct, name)

    crowd.repeat(step, lambda: (crowd.counted(kind)
                                and crowd.counted(kind, "cut")))
    direct.close()


# ------------------------------------------------------------- looking around

def looks(crowd, kind, user):
    """Asks what is there: nothing of other users, nor models of others."""
    client = crowd.user(user)

    def own(method, answer, entries):
        if {entry.user for entry in entries} - {user}:
            crowd.problem(kind, f"{method} shows other users: {answer}")
        crowd.count(kind, "own entries", len(entries))

    def step(number):
        models = len(crowd.asked["models"])
        crowd.judge(kind, client, "models", number % models)
        try:
            usage = client.stub.GetUsage(analysis.GetUsageRequest(),
                                         metadata=client.metadata)
            own("GetUsage", usage, usage.users)
            requests = client.stub.ListRequests(
                analysis.ListRequestsRequest(), metadata=client.metadata)
            own("ListRequests", requests, requests.requests)
            for service in (b"", b"qkscope.v1.Analysis", b"m"):
                health = client.channel.unary_unary(
                    "/grpc.health.v1.Health/Check")(
                        b"\x0a" + bytes([len(service)]) + service,
                        metadata=client.metadata)
                if health != _SERVING:
                    crowd.problem(kind, f"health of {service}: {health}")
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)
        crowd.pause(0.05)

    crowd.repeat(step, lambda: crowd.counted(kind))
    client.close()


# ------------------------------------------------------------- the operator

def guest(crowd, kind, user, key, number):
    """Uses a model that an operator replaces and unloads all the time."""
    asks(crowd, kind, user, f"second {key}", number,
         excused=("NOT_FOUND", "UNAVAILABLE"))


class _Operator:
    def __init__(self, crowd, kind):
        self.crowd = crowd
        self.kind = kind
        self.client = crowd.user("root")
        self.admin = admin_grpc.ModelAdminStub(self.client.channel)
        self.metadata = {"metadata": self.client.metadata}
        self.users = pathlib.Path(crowd.folder) / "users.conf"
        self.text = self.users.read_text()

    def load(self, path, replace):
        events = list(self.admin.LoadModel(admin.LoadModelRequest(
            name="b", path=path, replace=replace), **self.metadata))
        if not events[-1].HasField("model"):
            self.crowd.problem(self.kind, f"the load ended with {events[-1]}")
        self.crowd.count(self.kind, "loads")

    def reload(self, fails):
        part = next(part for part in self.admin.ReloadConfig(
            admin.ReloadConfigRequest(), **self.metadata).parts
            if part.name == "users")
        if bool(part.failure) != fails:
            self.crowd.problem(self.kind, f"reload: {part}")
        self.crowd.count(self.kind, "reloads")

    def spoil_users(self):
        """The users' file is a folder for a while, as mounts make it."""
        self.users.unlink()
        self.users.mkdir()
        os.kill(self.crowd.pid, signal.SIGHUP)
        self.reload(fails=True)
        self.users.rmdir()
        write_whole(self.users, self.text)
        os.kill(self.crowd.pid, signal.SIGHUP)
        self.reload(fails=False)

    def newcomer(self):
        """A user comes and goes."""
        write_whole(self.users, self.text + '\nusers { alias: "newcomer" '
                    f'token_sha256: "{self.crowd.tokens["new sha256"]}" }}')
        self.reload(fails=False)
        client = self.crowd.user("newcomer")
        self.crowd.judge(self.kind, client, "small", 0)
        write_whole(self.users, self.text)
        self.reload(fails=False)
        self.crowd.judge(self.kind, client, "strangers", 0)
        client.close()

    def looks(self):
        usage = self.client.stub.GetUsage(
            analysis.GetUsageRequest(all_users=True), **self.metadata)
        for user in usage.users:
            if (user.HasField("max_kept_results")
                    and user.kept_results > user.max_kept_results):
                self.crowd.problem(self.kind, f"{user.user} keeps too much")
        self.client.stub.ListRequests(
            analysis.ListRequestsRequest(all_users=True), **self.metadata)


def operates(crowd, kind):
    operator = _Operator(crowd, kind)

    def step(number):
        try:
            operator.load("tiny_llama_gqa", replace=False)
            operator.load("tiny_llama_tied", replace=True)
            operator.load("tiny_llama_gqa", replace=True)
            operator.admin.UnloadModel(admin.UnloadModelRequest(name="b"),
                                       **operator.metadata)
            operator.looks()
            if number % 5 == 0:
                operator.spoil_users()
            if number % 5 == 2:
                operator.newcomer()
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)

    # Its guests need the model until they have had their answers.
    crowd.repeat(step, lambda: (crowd.counted("guest, small")
                                and crowd.counted("guest, generate")))
    operator.client.close()


# (client, its arguments): the users are those of mixed_soak_test.py.
CLIENTS = [
    *((asks, "analyze", "good", "analyze", i * 9) for i in range(3)),
    (asks, "analyze, heavy user", "heavy", "analyze"),
    (asks, "analyze, light user", "light", "analyze"),
    (asks, "generate", "talker", "generate"),
    (asks, "score", "scorer", "score"),
    (asks, "many", "many", "many"),
    (asks, "estimate", "planner", "estimate"),
    (asks, "tokens", "speller", "tokens"),
    *((detached, "detached", "keeper", i) for i in range(2)),
    *((resumes, "resumable", "cut", i) for i in range(2)),
    (looks, "looking", "looker"),
    (poor, "budget of time", "poor", "analyze", 1),
    (poor, "budget of bytes", "thrifty", "analyze", 1),
    *((poor, "one in flight", "single", "generate") for _ in range(2)),
    (operates, "operator"),
    (guest, "guest, small", "guest", "small", 0),
    (guest, "guest, generate", "guest", "generate", 0),
]
PROBE = [(probe, "probe", "probe")]
