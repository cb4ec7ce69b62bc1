"""One process of the crowd of mixed_soak_test.py.

    mixed_crowd.py ROLE

A role is a list of clients, each a thread. The first line of the standard input
has the settings (JSON); each further line, "SECONDS", lets the clients work for
that long, and is answered by a line with what they counted.
"""

import collections
import faulthandler
import json
import signal
import sys
import threading
import time
import traceback

import grpc

import mixed_checked
import mixed_hostile
from mixed_requests import User, asked, error_line, retry_s

ROLES = {"checked": mixed_checked.CLIENTS, "probe": mixed_checked.PROBE,
         "hostile": mixed_hostile.CLIENTS, "floods": mixed_hostile.FLOODS}


class Crowd:
    """What the clients share. Thread-safe."""

    def __init__(self, settings):
        self.address = settings["address"]
        self.metrics_address = settings["metrics"]
        self.pid = settings["pid"]
        self.tokens = settings["tokens"]
        self.folder = settings["folder"]
        self.qkctl = settings["qkctl"]
        self.asked = {**asked("m"), **{
            f"second {kind}": asks for kind, asks in asked("b").items()}}
        self._alone = settings["alone"]
        self._lock = threading.Lock()
        self.begin(0)

    def begin(self, seconds):
        self._end = time.monotonic() + seconds
        self._counts = collections.Counter()
        self._problems = collections.Counter()
        self.times = []

    def user(self, name):
        return User(self.address, self.tokens.get(name))

    def bearer(self, name):
        return [(b"authorization", b"Bearer " + self.tokens[name].encode())]

    def over(self):
        return time.monotonic() >= self._end

    def pause(self, seconds):
        """Thinks for that long, but not beyond the end."""
        time.sleep(max(0, min(seconds, self._end - time.monotonic())))

    def repeat(self, step, enough=lambda: True):
        """Calls step(0), step(1), ... until the time is over and what must have
        been seen has been seen. A problem ends the wait for that."""
        number = 0
        while (number == 0 or not self.over()
               or not (self._problems or enough())):
            step(number)
            number += 1

    def count(self, kind, outcome, number=1):
        with self._lock:
            self._counts[f"{kind}: {outcome}"] += number

    def counted(self, kind, outcome="good"):
        with self._lock:
            return self._counts[f"{kind}: {outcome}"]

    def problem(self, kind, text):
        with self._lock:
            self._problems[f"{kind}: {text}"] += 1

    # ------------------------------------------------------------- answers

    def compare(self, kind, key, index, lines):
        """Compares an answer with those that the request gets alone."""
        if lines in self._alone[key][index]:
            self.count(kind, "good")
            return
        if any(line.startswith("busy ") for line in lines):
            self.count(kind, "refused in part")
            return
        self.count(kind, "wrong")
        alone = self._alone[key][index][0]
        for i in range(max(len(lines), len(alone))):
            pair = [part[i] if i < len(part) else "nothing"
                    for part in (lines, alone)]
            if pair[0] != pair[1]:
                self.problem(kind, f"wrong: {key} {index}: got {pair[0]}, "
                                   f"alone {pair[1]}")
                return

    def failed(self, kind, failure, excused=()):
        """Counts an error that load excuses; any other is a problem."""
        code, retry = failure.code(), retry_s(failure)
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and retry is not None:
            self.count(kind, "refused")
            self.count("refusals", " ".join(
                word for word in failure.details().split()
                if not any(c.isdigit() for c in word))[:70])
            self.pause(min(retry, 0.05))
        elif code.name in excused:
            self.count(kind, code.name)
        else:
            self.problem(kind, f"{error_line(failure)}, retry {retry}")

    def judge(self, kind, user, key, index, timeout=None, excused=()):
        method, request = self.asked[key][index]
        try:
            lines = user.answer(method, request, timeout)
        except grpc.RpcError as failure:
            lines = [error_line(failure)]
            if lines not in self._alone[key][index]:
                self.failed(kind, failure, excused)
                return
        self.compare(kind, key, index, lines)

    # ------------------------------------------------------------- clients

    def _guarded(self, client, arguments):
        try:
            client(self, *arguments)
        except Exception:  # pylint: disable=broad-except
            self.problem(client.__name__, traceback.format_exc())

    def run(self, clients, seconds):
        self.begin(seconds)
        threads = [threading.Thread(target=self._guarded,
                                    args=(client, arguments))
                   for client, *arguments in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"counts": self._counts, "problems": self._problems,
                "times": self.times}


def main(role):
    faulthandler.register(signal.SIGUSR1)
    crowd = Crowd(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(crowd.run(ROLES[role], float(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
