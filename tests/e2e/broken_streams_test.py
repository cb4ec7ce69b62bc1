"""Streams that end in the middle: cancel, kill, drain, deadline."""

import pathlib
import signal
import time
import unittest

from processes import TINY_MODEL, Server, Stalled, qkctl, scratch_folder

SHORT = ["analyze", "--model", "tiny", "--token-ids", "1,2,3"]


class BrokenStreamsTest(unittest.TestCase):

    def setUp(self):
        self.server = Server({"tiny": TINY_MODEL})
        self.addCleanup(self.server.stop)
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

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
        # The server is not the worse for it.
        self.assertEqual(qkctl(self.server, *SHORT).returncode, 0)

    def test_server_killed_in_the_middle(self):
        client = self.stalled("--out", self.folder / "out")
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        code, events, err = client.finish()
        self.assertEqual(code, 7, err)
        self.assertIn("incomplete stream", err)
        self.assertNotIn("finished", events[-1])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_sigterm_in_the_middle_lets_the_stream_finish(self):
        client = self.stalled()
        self.server.send_signal(signal.SIGTERM)
        code, events, err = client.finish()
        self.assertEqual(code, 0, err)
        self.assertIn("finished", events[-1])
        self.assertEqual(self.server.wait(), 0, self.server.log_text())

    def test_deadline_in_the_middle(self):
        client = self.stalled("--timeout", "3")
        # Nobody reads, so the stream cannot end before its deadline does.
        time.sleep(3)
        code, events, err = client.finish()
        self.assertEqual(code, 9, err)
        self.assertNotIn("finished", events[-1])

    def test_killed_client_leaves_a_working_server(self):
        client = self.stalled()
        client.process.kill()
        client.process.wait()
        self.assertEqual(qkctl(self.server, *SHORT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
