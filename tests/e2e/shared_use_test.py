"""Tests one server for several people: requests that outlive their streams,
streams that are cut, budgets, and who sees what."""

import json
import pathlib
import signal
import threading
import unittest

import processes
from holding_proxy import HoldingProxy
from processes import (TINY_MODEL, Client, Server, Stalled, metrics, qkctl,
                       scratch_folder, wait_until)

IDS = ",".join(str(1 + i % 90) for i in range(40))
# The answer has some 14 KB.
ANALYZE = ["analyze", "--model", "tiny", "--token-ids", IDS, "--arm", "clean",
           "--arm", "top_k:1", "--form", "raw"]


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
        """Returns the users' tokens, and the users file."""
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

    def analyze_through_cuts(self, server, cuts, *flags):
        """Runs a qkctl whose connections are cut after this many bytes each,
        the first only after it has shown an event."""
        proxy = HoldingProxy(server.address, cuts)
        self.addCleanup(proxy.close)
        # With more arms, each connection has more to send than its limit.
        arms = [word for seed in range(6)
                for word in ("--arm", f"random_k:1,seed={seed}")]
        client = Client(proxy.address, *ANALYZE, *arms, "--json", *flags)
        self.addCleanup(client.__exit__)
        self.assertTrue(client.read_until("accepted"))
        for _ in cuts:
            self.assertTrue(proxy.await_held(processes.PATIENCE_S))
            proxy.cut()
        return client.finish()

    def test_a_stream_that_is_cut_is_taken_up(self):
        server = self.start()
        whole = self.folder / "whole.safetensors"
        self.ok(server, *ANALYZE, "--out", whole)
        for cuts in [[3000], [8000, 6000], [10_000, 4000, 4000]]:
            before = metrics(server)["qkscope_rpc_started_total"]
            out = self.folder / "cut.safetensors"
            code, events, err = self.analyze_through_cuts(
                server, cuts, "--resumable", "--retries", "4", "--out", out)
            self.assertEqual(code, 0, err)
            self.assertIn("finished", events[-1])
            same = qkctl(server, "replay", out)
            self.assertEqual(same.returncode, 0, same.stdout + same.stderr)
            # The client continued with the request that it had.
            after = metrics(server)["qkscope_rpc_started_total"]
            self.assertEqual(
                [after.get(method, 0) - before.get(method, 0) for method in
                 ('{method="Analyze"}', '{method="GetResult"}')],
                [2, len(cuts)])  # The replay is an Analyze, too.
        # Without permission to resume, the request ends, and qkctl says so.
        code, _, err = self.analyze_through_cuts(server, [6000])
        self.assertEqual(code, 7, err)

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
        def listed_once():
            requests = json.loads(self.ok(server, "queue", "--json"))
            return (requests["requests"] if len(requests["requests"]) == 1
                    else None)

        # It is also listed as running until its run is gone.
        listed = wait_until(listed_once, "the run")
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
        # A killed server leaves a file that it was writing.
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
        # An operator can see the request and end it.
        server.client_flags = []
        listed = json.loads(self.ok(server, "queue", "--all-users", "--json",
                                    token=tokens["root"]))["requests"]
        self.assertEqual([entry["user"] for entry in listed], ["ada"])
        self.assertEqual(
            qkctl(server, "queue", "--all-users",
                  token=tokens["ada"]).returncode, 12)
        refusals = metrics(server)["qkscope_refused_total"]
        waiting = []
        thread = threading.Thread(target=lambda: waiting.append(
            qkctl(server, *ANALYZE, "--retries", "8", token=tokens["ada"])))
        thread.start()
        wait_until(lambda: sum(metrics(server)["qkscope_refused_total"].values())
                   > sum(refusals.values()), "a second refusal")
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
