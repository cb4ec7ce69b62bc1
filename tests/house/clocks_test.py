"""Tests that the server measures time with a clock that never jumps (row R29 of
docs/reliability.md): only these files look at the wall clock."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WALL_CLOCK = re.compile(r"absl::Now\b|system_clock|\bgettimeofday|"
                        r"CLOCK_REALTIME|GetCurrentTimeNanos")
# File -> why it may.
MAY = {
    "server/access/access.cc": "a certificate is valid in a time of day",
    "server/calls/kept_run.cc": "what a kept result's file says",
    "server/calls/status_reader.cc": "when the status page was made",
    "server/common/log.cc": "what a line of the log says",
    "server/net/self_check.cc": "gRPC takes a deadline so, and at once turns "
                                "it into one of another clock",
    "server/observe/activation_metrics.cc": "when a baseline was saved",
    "server/observe/process_metrics.cc": "when the process began, as "
                                         "Prometheus wants it",
    "server/results/result_store.h": "what a kept result's file says",
    "server/server.cc": "as in self_check.cc",
}


def users(root):
    return {str(file.relative_to(root))
            for file in (root / "server").rglob("*")
            if file.suffix in (".cc", ".h") and
            WALL_CLOCK.search(file.read_text())}


class ClocksTest(unittest.TestCase):
    def test_r29_only_these_look_at_the_wall_clock(self):
        self.assertEqual(users(ROOT), set(MAY))


if __name__ == "__main__":
    sys.exit(unittest.main())
