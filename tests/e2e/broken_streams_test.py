"""Tests streams that end in the middle: cancel, kill, drain, deadline."""

import pathlib
import signal
import unittest

from processes import PATIENT, TINY_MODEL, Server, Stalled, qkctl
from processes import scratch_folder, wait_until

SHORT = ["analyze", "--model", "tiny", "--token-ids", "1,2,3"]


class BrokenStreamsTest(unittest.TestCase):

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        # The folder for --out; it holds nothing else.
        self.folder = pathlib.Path(folder.name) / "out"
        self.folder.mkdir()
        config = pathlib.Path(folder.name) / "q.conf"
        config.write_text(PATIENT + "shutdown_grace_s: 3600")
        self.server = Server({"tiny": TINY_MODEL}, "--config", config)
        self.addCleanup(self.server.stop)

    def stalled(self, *flags):
        stalled = Stalled(self.server, *flags)
        self.addCleanup(stalled.__exit__)
        return stalled

    def test_cancel_in_the_middle(self):
        client = self.stalled("--out", self.folder / "out")
        client.process.send_signal(signal.SIGINT)
        code, events, err = client.finish()
        self.assertEqual(code, 8, err)
        self.assertNotIn("finished", events[-1])
        self.assertIn("cancelled", err)
        self.assertEqual(list(self.folder.iterdir()), [])
        # The server still works as before.
        self.assertEqual(qkctl(self.server, *SHORT).returncode, 0)

    def test_server_killed_in_the_middle(self):
        client = self.stalled("--out", self.folder / "out")
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        client.release()
        code, events, err = client.finish()
        self.assertEqual(code, 7, err)
        self.assertIn("incomplete stream", err)
        self.assertNotIn("finished", events[-1])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_sigterm_in_the_middle_lets_the_stream_finish(self):
        client = self.stalled()
        self.server.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in self.server.log_text(), "the drain")
        client.release()
        code, events, err = client.finish()
        self.assertEqual(code, 0, err)
        self.assertIn("finished", events[-1])
        self.assertEqual(self.server.wait(), 0, self.server.log_text())

    def test_deadline_in_the_middle(self):
        # The deadline grows until the first layer comes before it.
        seconds = 2
        while True:
            client = self.stalled("--timeout", str(seconds))
            in_the_middle = any("layer" in event for event in client.events)
            # Nothing more arrives: the stream cannot end before its deadline.
            code, events, err = client.finish()
            self.assertEqual(code, 9, err)
            self.assertFalse(any("finished" in event for event in events))
            if in_the_middle:
                return
            seconds *= 2
            self.assertLess(seconds, 1000, "no layer ever comes")

    def test_killed_client_leaves_a_working_server(self):
        client = self.stalled()
        client.process.kill()
        client.process.wait()
        self.assertEqual(qkctl(self.server, *SHORT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
