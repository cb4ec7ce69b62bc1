"""One server for several people: requests that outlive their streams, streams
that break off on the way, budgets, and who sees what."""

import json
import pathlib
import signal
import socket
import threading
import time
import unittest

import processes
from processes import TINY_MODEL, Server, Stalled, qkctl, scratch_folder

IDS = ",".join(str(1 + i % 90) for i in range(40))
ANALYZE = ["analyze", "--model", "tiny", "--token-ids", IDS, "--arm", "clean",
           "--arm", "top_k:1", "--form", "raw"]


class CuttingProxy:
    """Forwards connections to `address`; cuts the next one after so many bytes
    of the server's, once for each entry of `cuts`."""

    def __init__(self, address, cuts):
        host, port = address.rsplit(":", 1)
        self.target = host, int(port)
        self.cuts = list(cuts)
        self.made = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            limit = self.cuts.pop(0) if self.cuts else None
            for source, sink, most in [(client, server, None),
                                       (server, client, limit)]:
                threading.Thread(target=self._copy, daemon=True,
                                 args=(source, sink, most)).start()

    def _copy(self, source, sink, limit):
        copied = 0
        try:
            while data := source.recv(4096):
                if limit is not None and copied + len(data) > limit:
                    sink.sendall(data[:limit - copied])
                    self.made += 1
                    break
                sink.sendall(data)
                copied += len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()

    def close(self):
        self.listener.close()


class SharedUseTest(unittest.TestCase):

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.spool = self.folder / "spool"

    def start(self, *flags):
        server = Server({"tiny": TINY_MODEL}, "--spool", self.spool, *flags)
        self.addCleanup(server.stop)
        return server

    def ok(self, server, *arguments, token=None):
        result = qkctl(server, *arguments, token=token)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def users(self, **budgets):
        """Tokens of users, and the file that knows them."""
        file = self.folder / "users.conf"
        tokens = {}
        for alias, budget in budgets.items():
            role = ["--role", "operator"] if alias == "root" else []
            made = qkctl("127.0.0.1:1", "user", "add", alias, "--users-file",
                         file, *role)
            self.assertEqual(made.returncode, 0, made.stderr)
            tokens[alias] = made.stdout.strip()
            if budget:
                text = file.read_text()
                at = text.index(f'alias: "{alias}"')
                file.write_text(text[:at] + f"budget {{{budget}}} "
                                + text[at:])
        return tokens, file

    def test_a_stream_that_is_cut_is_taken_up(self):
        server = self.start()
        whole = self.folder / "whole.safetensors"
        self.ok(server, *ANALYZE, "--out", whole)
        for cuts in [[3000], [8000, 6000], [10_000, 4000, 4000]]:
            proxy = CuttingProxy(server.address, cuts)
            self.addCleanup(proxy.close)
            out = self.folder / "cut.safetensors"
            # gRPC may lose the first event with the connection: then there is
            # nothing to go on with, and the request is sent again.
            self.ok(proxy.address, *ANALYZE, "--resumable", "--retries", "4",
                    "--out", out)
            self.assertGreater(proxy.made, 0)
            same = qkctl(server, "replay", out)
            self.assertEqual(same.returncode, 0, same.stdout + same.stderr)
        # Without leave to go on the request is over, and says so.
        proxy = CuttingProxy(server.address, [6000])
        self.addCleanup(proxy.close)
        broken = qkctl(proxy.address, *ANALYZE)
        self.assertEqual(broken.returncode, 7, broken.stderr)

    def test_detached_requests_have_an_id_a_place_and_an_end(self):
        server = self.start()
        name = self.ok(server, *ANALYZE, "--detach").strip()
        self.assertRegex(name, "^[0-9a-f]{16}$")
        direct = self.ok(server, *ANALYZE, "--json")
        kept = self.ok(server, "result", name, "--json")

        def tensors(text):
            return [line for line in text.splitlines() if '"layer":{' in line]

        self.assertEqual(tensors(kept), tensors(direct))
        self.assertGreater(len(tensors(kept)), 10)
        listed = json.loads(self.ok(server, "queue", "--json"))["requests"]
        self.assertEqual([entry["request_id"] for entry in listed], [name])
        self.assertEqual(listed[0]["state"], "FINISHED")
        self.assertIn(name, self.ok(server, "top", "--once"))
        self.assertIn("deleted", self.ok(server, "cancel", name))
        self.assertEqual(qkctl(server, "result", name).returncode, 5)
        self.assertEqual(qkctl(server, "cancel", name).returncode, 5)
        self.assertIn("no requests", self.ok(server, "queue"))

    def test_results_survive_a_killed_server(self):
        server = self.start()
        name = self.ok(server, *ANALYZE, "--detach").strip()
        before = self.ok(server, "result", name, "--json")
        server.stop(signal.SIGKILL)
        # What a killed server was writing.
        (self.spool / "00000000000000aa.part").write_bytes(b"half a file")
        server = self.start()
        self.assertEqual(self.ok(server, "result", name, "--json"), before)
        self.assertEqual(
            qkctl(server, "result", "00000000000000aa").returncode, 5)
        self.assertEqual(list(self.spool.glob("*.part")), [])

    def test_a_budget_is_waited_for(self):
        tokens, file = self.users(ada="max_in_flight: 1", root="")
        server = self.start("--users-file", file)
        server.client_flags = ["--token-file", self.folder / "ada.token"]
        (self.folder / "ada.token").write_text(tokens["ada"])
        stalled = Stalled(server)
        self.addCleanup(stalled.__exit__)
        refused = qkctl(server, *ANALYZE)
        self.assertEqual(refused.returncode, 6, refused.stderr)
        self.assertIn("client quota: 1 requests in flight", refused.stderr)
        # An operator sees it, and can end it.
        server.client_flags = []
        listed = json.loads(self.ok(server, "queue", "--all-users", "--json",
                                    token=tokens["root"]))["requests"]
        self.assertEqual([entry["user"] for entry in listed], ["ada"])
        self.assertEqual(
            qkctl(server, "queue", "--all-users",
                  token=tokens["ada"]).returncode, 12)
        waiting = []
        thread = threading.Thread(target=lambda: waiting.append(
            qkctl(server, *ANALYZE, "--retries", "8", token=tokens["ada"])))
        thread.start()
        time.sleep(0.3)
        self.ok(server, "cancel", listed[0]["request_id"],
                token=tokens["root"])
        thread.join(processes.PATIENCE_S)
        self.assertEqual(waiting[0].returncode, 0, waiting[0].stderr)
        usage = json.loads(self.ok(server, "usage", "--json",
                                   token=tokens["ada"]))["users"][0]
        self.assertEqual(usage["user"], "ada")
        self.assertEqual(usage["max_requests_in_flight"], 1)
        self.assertGreater(usage["device_ms"], 0)


if __name__ == "__main__":
    unittest.main()
