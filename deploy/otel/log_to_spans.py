#!/usr/bin/env python3
"""Sends the requests in qkscoped's log as OpenTelemetry spans, over OTLP/HTTP.

    log_to_spans.py --follow FILE [--state FILE] [--from-start]
    log_to_spans.py < LOG

Each line of a request becomes a span of the server, with children for the queue,
the passes and the stream. A request with a `traceparent` joins the client's
trace; the others begin one of their own. A span's id is the request's id, and
all ids follow from the line: a line that is sent twice is the same span.

The server knows nothing of this. --follow reads a file as it grows, also through
rotation; where it has got to is kept in the file --state, and without one it
begins at the end (--from-start: at the beginning). While the collector does not
answer, it reads no further, tries for --retry-for seconds, and then drops the
batch. SIGTERM sends what has been read and ends it.

Where spans go is said by OpenTelemetry's variables: OTEL_EXPORTER_OTLP_ENDPOINT
(default http://localhost:4318), OTEL_EXPORTER_OTLP_HEADERS,
OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES and so on.
"""

import argparse
import json
import logging
import os
import pathlib
import select
import signal
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from request_spans import CALL_EVENT, KEPT_EVENT, Malformed, spans_of

BATCH_SPANS = 512
# Longer than any line of the log, whose prompts are cut at 4 KiB.
MAX_LINE = 1 << 20
POLL_S = 0.5


class Sender:
    """Turns lines into spans and sends them in batches."""

    def __init__(self, exporter, resource, retry_s):
        self._exporter = exporter
        self._resource = resource
        self._retry_s = retry_s
        self._batch = []
        self.stopped = False
        self.counts = {"sent": 0, "dropped": 0, "skipped": 0, "malformed": 0}

    def add(self, raw):
        """Takes a line, and sends the batch if it is full."""
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            self.counts["malformed"] += 1
            return
        if line.get("event") not in (CALL_EVENT, KEPT_EVENT):
            self.counts["skipped"] += 1
            return
        try:
            spans = spans_of(line, self._resource)
        except Malformed:
            self.counts["malformed"] += 1
            return
        if not spans:
            self.counts["skipped"] += 1
        self._batch += spans

    def full(self):
        return len(self._batch) >= BATCH_SPANS

    def flush(self):
        """Sends the batch, or drops it when no try succeeds in time. Returns
        false if it was stopped before either."""
        until = time.monotonic() + self._retry_s
        pause = 1.0
        while self._batch:
            done = self._exporter.export(self._batch)
            if done is SpanExportResult.SUCCESS:
                self.counts["sent"] += len(self._batch)
                self._batch = []
            elif self.stopped:
                return False
            elif time.monotonic() >= until:
                self.counts["dropped"] += len(self._batch)
                self._batch = []
            else:
                self._wait(pause)
                pause = min(pause * 2, 30)
        return True

    def _wait(self, seconds):
        until = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < until:
            time.sleep(0.1)


class LogFile:
    """A log file that grows and is renamed or truncated."""

    def __init__(self, path, state, from_start):
        self._path = path
        self._state = state
        self._file = None
        self._offset = 0  # of the first byte that is not in a batch yet
        self._saved = None
        known = self._known()
        if known is not None:
            self._open_known(*known)
        elif not from_start and path.exists():
            self._open(path, path.stat().st_size)

    def _known(self):
        if self._state is None or not self._state.exists():
            return None
        try:
            kept = json.loads(self._state.read_text())
            return int(kept["inode"]), int(kept["offset"])
        except (ValueError, KeyError, TypeError):
            return None

    def _open_known(self, inode, offset):
        """Opens the file that was being read, which may have been renamed."""
        for path in self._path.parent.glob(self._path.name + "*"):
            if path.is_file() and path.stat().st_ino == inode:
                self._open(path, offset)
                return

    def _open(self, path, offset):
        if self._file is not None:
            self._file.close()
        self._file = open(path, "rb")
        size = os.fstat(self._file.fileno()).st_size
        self._offset = offset if offset <= size else 0

    def lines(self):
        """Yields the whole lines that are there now."""
        while True:
            if self._file is None and self._path.exists():
                self._open(self._path, 0)
            if self._file is None:
                return
            # The server opens the new file before it writes to it, so a new
            # file with content says that the old one is complete.
            next_began = self._next_began()
            yield from self._rest()
            if not next_began:
                return
            self._open(self._path, 0)

    def _next_began(self):
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._file.fileno())
        if now.st_ino != mine.st_ino:
            return now.st_size > 0
        if now.st_size < self._offset:
            self._offset = 0
        return False

    def _rest(self):
        self._file.seek(self._offset)
        while True:
            raw = self._file.readline(MAX_LINE)
            if not raw.endswith(b"\n") and len(raw) < MAX_LINE:
                return
            self._offset += len(raw)
            yield raw

    def save(self):
        """Keeps how far all has been sent."""
        if self._state is None or self._file is None:
            return
        position = {"inode": os.fstat(self._file.fileno()).st_ino,
                    "offset": self._offset}
        if position == self._saved:
            return
        temporary = self._state.with_name(self._state.name + ".new")
        temporary.write_text(json.dumps(position))
        temporary.replace(self._state)
        self._saved = position


def follow(log, sender):
    while True:
        # What stands in the log when the signal comes is still sent.
        last = sender.stopped
        for raw in log.lines():
            sender.add(raw)
            if sender.full():
                if not sender.flush():
                    return
                log.save()
        if not sender.flush():
            return
        log.save()
        if last:
            return
        if not sender.stopped:
            time.sleep(POLL_S)


def read_pipe(stream, sender):
    """Sends what a pipe brings, at once when nothing more comes."""
    rest = b""
    while not sender.stopped:
        if not select.select([stream], [], [], POLL_S)[0]:
            sender.flush()
            continue
        data = os.read(stream.fileno(), 1 << 16)
        *lines, rest = (rest + data).split(b"\n")
        for raw in lines:
            sender.add(raw)
            if sender.full():
                sender.flush()
        if not data:
            break
        if len(rest) > MAX_LINE:
            rest = b""
    sender.flush()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--follow", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--state", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--from-start", action="store_true")
    parser.add_argument("--retry-for", type=float, default=300,
                        metavar="SECONDS")
    flags = parser.parse_args()

    logging.basicConfig(level=logging.WARNING)
    resource = Resource.create({"service.name": "qkscope"})
    sender = Sender(OTLPSpanExporter(), resource, flags.retry_for)

    def stop(*_):
        sender.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if flags.follow:
        follow(LogFile(flags.follow, flags.state, flags.from_start), sender)
    else:
        read_pipe(sys.stdin.buffer, sender)
    print(json.dumps({"event": "log_to_spans_ended", **sender.counts}),
          file=sys.stderr)


if __name__ == "__main__":
    main()
