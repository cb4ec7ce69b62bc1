"""Tests users, tokens and request logs with real processes."""

import hashlib
import http.client
import json
import pathlib
import re
import signal
import stat
import subprocess
import unittest

import raw_grpc
from processes import BIN, PATIENCE_S, TINY_MODEL, Server, qkctl
from processes import scratch_folder, wait_until, write_whole

EXIT_DENIED = 12
EX_CONFIG = 78
INFO = "/qkscope.v1.Analysis/GetServerInfo"
REFUSED = b"missing or invalid token"


def add_user(path, alias, *flags):
    """Adds a user; returns the user's token."""
    result = qkctl("", "user", "add", alias, "--users-file", path, *flags)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.users = self.folder / "users.conf"


class UserCommandTest(WithFolder):
    def test_add_prints_the_token_once(self):
        result = qkctl("", "user", "add", "ada", "--users-file", self.users,
                       "--role", "operator", "--weight", "2.5", "--models",
                       "a,b")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"\Aqks_[A-Za-z0-9_-]{43}\n\Z")
        token = result.stdout.strip()
        self.assertNotIn(token, result.stderr)
        text = self.users.read_text()
        self.assertNotIn(token, text)
        self.assertIn(hashlib.sha256(token.encode()).hexdigest(), text)
        self.assertEqual(stat.S_IMODE(self.users.stat().st_mode), 0o600)
        self.assertNotEqual(token, add_user(self.users, "bob"))
        listed = qkctl("", "user", "list", "--users-file", self.users).stdout
        self.assertRegex(listed, r"ada +operator +2\.5 +token +a,b\n")
        self.assertRegex(listed, r"bob +user +1 +token +all\n")

    def test_the_file_keeps_comments_and_mode(self):
        self.users.write_text("# ours")
        self.users.chmod(0o640)
        add_user(self.users, "ada")
        self.assertTrue(self.users.read_text().startswith("# ours\nusers {"))
        self.assertEqual(stat.S_IMODE(self.users.stat().st_mode), 0o640)

    def test_refusals_leave_the_file_alone(self):
        add_user(self.users, "ada")
        before = self.users.read_bytes()
        for words in (["add", "ada"], ["add", "a b"], ["add", "anonymous"],
                      ["add", "x", "--role", "root"],
                      ["add", "x", "--weight", "0"],
                      ["add", "x", "--models", "a,,b"], ["add"], ["remove"],
                      ["remove", "bob"], ["list", "x"], ["change", "ada"]):
            result = qkctl("", "user", *words, "--users-file", self.users)
            self.assertNotEqual(result.returncode, 0, words)
            self.assertEqual(result.stdout, "", words)
            self.assertEqual(self.users.read_bytes(), before, words)
        self.users.write_text("users {\n alia: 'x' }")
        result = qkctl("", "user", "add", "bob", "--users-file", self.users)
        self.assertIn(f"{self.users}:2: ", result.stderr)
        self.assertEqual(self.users.read_text(), "users {\n alia: 'x' }")

    def test_without_a_file_it_prints_the_entry(self):
        result = qkctl("", "user", "add", "ada")
        token, entry = result.stdout.split("\n", 1)
        self.assertIn('alias: "ada"', entry)
        self.assertIn(hashlib.sha256(token.encode()).hexdigest(), entry)

    def test_many_at_a_time(self):
        adding = [subprocess.Popen(
            [BIN / "qkctl", "user", "add", f"u{i}", "--users-file",
             self.users], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for i in range(8)]
        for process in adding:
            process.communicate(timeout=PATIENCE_S)
            self.assertEqual(process.returncode, 0)
        text = self.users.read_text()
        self.assertEqual(text.count("alias:"), 8)
        self.assertEqual([p.name for p in self.folder.iterdir()],
                         ["users.conf"])

    def test_remove(self):
        add_user(self.users, "ada")
        add_user(self.users, "bob")
        result = qkctl("", "user", "remove", "ada", "--users-file", self.users)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn('"ada"', self.users.read_text())
        self.assertIn('"bob"', self.users.read_text())


class TokenTest(WithFolder):
    def serve(self, *flags):
        server = Server({"tiny": TINY_MODEL}, "--users-file", self.users,
                        *flags)
        self.addCleanup(server.stop)
        return server

    def await_code(self, server, token, code):
        wait_until(lambda: qkctl(server, "models",
                                 token=token).returncode == code,
                   server.log_text)

    def test_qkctl_gives_the_token(self):
        token = add_user(self.users, "ada")
        server = self.serve()
        result = qkctl(server, "models")
        self.assertEqual(result.returncode, EXIT_DENIED)
        self.assertIn("missing or invalid token", result.stderr)
        self.assertEqual(qkctl(server, "health").returncode, 0)
        self.assertEqual(qkctl(server, "models", token=token).returncode, 0)
        file = self.folder / "ada.token"
        file.write_text(token + "\n")
        for place in (["--token-file", file, "models"],
                      ["models", "--token-file", file]):
            self.assertEqual(qkctl(server, *place).returncode, 0)
        # The file takes precedence over the environment.
        self.assertEqual(qkctl(server, "models", "--token-file", file,
                               token="qks_wrong").returncode, 0)
        for bad in ("", "two words\n"):
            file.write_text(bad)
            result = qkctl(server, "models", "--token-file", file)
            self.assertEqual(result.returncode, 2)
            self.assertIn("contains no token", result.stderr)
        result = qkctl(server, "models", token="qks_wr\u00f6ng")
        self.assertEqual(result.returncode, 2)
        self.assertIn("QKSCOPE_TOKEN", result.stderr)
        self.assertNotIn("wr", result.stderr.replace("wrong", ""))

    def test_s16_health_hides_models(self):
        ada = add_user(self.users, "ada")
        bob = add_user(self.users, "bob", "--models", "tiny")
        server = Server({"tiny": TINY_MODEL, "secret": TINY_MODEL},
                        "--users-file", self.users)
        self.addCleanup(server.stop)

        def health(model, token):
            result = qkctl(server, "health", *(["--model", model] if model
                                               else []), token=token)
            return result.returncode, result.stderr.replace(model, "NAME")

        unknown = health("nonesuch", ada)
        self.assertEqual(unknown[0], 5)
        for token in (ada, bob, None, "qks_wrong"):
            self.assertEqual(health("", token)[0], 0)
            self.assertEqual(health("secret", token)[0] == 0, token == ada)
            self.assertEqual(health("tiny", token)[0] == 0,
                             token in (ada, bob))
        for token in (bob, None, "qks_wrong"):
            self.assertEqual(health("secret", token), unknown)

    def test_s16_metrics_hide_models(self):
        ada = add_user(self.users, "ada")
        bob = add_user(self.users, "bob", "--models", "tiny")
        server = Server({"tiny": TINY_MODEL, "secret": TINY_MODEL},
                        "--users-file", self.users)
        self.addCleanup(server.stop)

        def scrape(*values):
            """Returns the status and which models the series name."""
            host, port = server.metrics_address.rsplit(":", 1)
            connection = http.client.HTTPConnection(host, int(port),
                                                    timeout=PATIENCE_S)
            connection.putrequest("GET", "/metrics")
            for value in values:
                connection.putheader("Authorization", value)
            connection.endheaders()
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, set(re.findall(r'model="([^"]*)"', text))

        self.assertEqual(scrape(), (200, {"tiny"}))
        self.assertEqual(scrape(f"Bearer {ada}"), (200, {"tiny", "secret"}))
        self.assertEqual(scrape(f"Bearer {bob}"), (200, {"tiny"}))
        for wrong in (["Bearer qks_wrong"], [""], ["Basic YTpi"],
                      [f"Bearer {ada}", f"Bearer {ada}"]):
            self.assertEqual(scrape(*wrong), (401, set()))
        # Whoever is removed sees no more than others.
        qkctl("", "user", "remove", "bob", "--users-file", self.users)
        wait_until(lambda: scrape()[1] == {"tiny", "secret"}, server.log_text)
        self.assertEqual(scrape(f"Bearer {bob}"), (401, set()))

    def test_users_change_without_a_restart(self):
        ada = add_user(self.users, "ada")
        server = self.serve()
        self.assertEqual(qkctl(server, "models", token=ada).returncode, 0)
        bob = add_user(self.users, "bob")
        self.await_code(server, bob, 0)
        self.assertEqual(qkctl(server, "models", token=ada).returncode, 0)
        qkctl("", "user", "remove", "ada", "--users-file", self.users)
        self.await_code(server, ada, EXIT_DENIED)
        # A broken file changes nothing, and the log says where the fault is.
        good = self.users.read_text()
        write_whole(self.users, good + "users {\n  alias: 'x'\n}\n")
        server.await_log("users_not_reloaded")
        self.assertIn(f"{self.users}:{good.count(chr(10)) + 1}: users[1]."
                      "token_sha256", server.log_text())
        self.assertEqual(qkctl(server, "models", token=bob).returncode, 0)
        # A file without users lets nobody in.
        write_whole(self.users, "# nobody\n")
        self.await_code(server, bob, EXIT_DENIED)
        count = server.log_text().count("users_reloaded")
        server.send_signal(signal.SIGHUP)
        server.await_log("users_reloaded", count + 1)
        self.assertIsNone(server.process.poll())

    def test_users_of_the_configuration_change_too(self):
        def write(token):
            digest = hashlib.sha256(token.encode()).hexdigest()
            write_whole(
                config, "listen: '127.0.0.1:0' metrics_listen: '' "
                f"users {{ alias: 'a' token_sha256: '{digest}' }}")
        config = self.folder / "q.conf"
        write("one")
        server = Server({"tiny": TINY_MODEL}, "--config", config)
        self.addCleanup(server.stop)
        self.assertEqual(qkctl(server, "models", token="one").returncode, 0)
        write("two")
        self.await_code(server, "two", 0)
        self.await_code(server, "one", EXIT_DENIED)

    def test_s4_headers_that_no_library_sends(self):
        token = add_user(self.users, "ada").encode()
        server = self.serve()

        def ask(*headers):
            with raw_grpc.connect(server.address) as connection:
                return raw_grpc.call(connection, INFO, headers)

        good = (b"authorization", b"Bearer " + token)
        answer = ask(good)
        self.assertNotIn(REFUSED, answer.headers)
        self.assertGreater(len(answer.messages), 5)
        for headers in ([], [(b"authorization", b"")],
                        [(b"authorization", b"Bearer " + token + b" ")],
                        [(b"authorization", b"Bearer  " + token)],
                        [(b"authorization", b"Bearer\t" + token)],
                        [(b"authorization", b"Bearer " + token + b"\xc3\xa9")],
                        [(b"authorization", b"Bearer \xff\xfe")],
                        [(b"authorization", b"Basic " + token)],
                        [good, good],
                        [(b"authorization", b"Bearer no"), good],
                        [(b"authorization", b"Bearer " + b"a" * 8192)],
                        [(b"x-qkscope-client-cn", b"ada")],
                        [(b"x-qkscope-user", b"ada")],
                        [(b"x-forwarded-client-cert", b"Subject=\"CN=ada\"")]):
            answer = ask(*headers)
            self.assertIn(REFUSED, answer.headers, headers)
            self.assertEqual(answer.messages, b"", headers)
        self.assertNotIn(token.decode(), server.log_text())


class StartTest(WithFolder):
    def refused(self, *flags):
        result = subprocess.run(
            [BIN / "qkscoped", "--metrics-listen", "", "--model",
             f"t={TINY_MODEL}", *map(str, flags)], capture_output=True,
            encoding="utf-8", timeout=PATIENCE_S, check=False)
        self.assertEqual(result.returncode, EX_CONFIG, result.stderr)
        return result.stderr

    def test_s13_others_cannot_reach_a_server_that_nobody_guards(self):
        token = add_user(self.users, "ada")
        for address in ("0.0.0.0:0", "[::]:0"):
            for flags in ((), ("--users-file", self.users)):
                for check in ((), ("--check-config",)):
                    text = self.refused("--listen", address, *flags, *check)
                    self.assertIn(f"listen: '{address}' can be reached by "
                                  "other machines", text)
                    self.assertIn("behind_proxy", text)
        with Server({"tiny": TINY_MODEL}, "--allow-anonymous-network",
                    listen="0.0.0.0:0") as server:
            self.assertEqual(qkctl(server, "models").returncode, 0)
        with Server({"tiny": TINY_MODEL}, "--users-file", self.users,
                    "--behind-proxy", listen="0.0.0.0:0") as server:
            self.assertEqual(qkctl(server, "models", token=token).returncode,
                             0)
            self.assertNotIn("tokens travel in plaintext", server.log_text())
        with Server({"tiny": TINY_MODEL}, "--users-file", self.users,
                    "--allow-anonymous-network",
                    listen="0.0.0.0:0") as server:
            self.assertEqual(qkctl(server, "models").returncode, EXIT_DENIED)
            self.assertEqual(qkctl(server, "models", token=token).returncode,
                             0)
            self.assertIn("tokens travel in plaintext", server.log_text())

    def test_bad_users_stop_the_start(self):
        self.assertIn(f"{self.users}: cannot be read",
                      self.refused("--listen", "127.0.0.1:0", "--users-file",
                                   self.users))
        self.users.write_text("\nusers { alias: 'a' weight: -1 subject: 'x' }")
        text = self.refused("--listen", "127.0.0.1:0", "--users-file",
                            self.users)
        self.assertIn(f"{self.users}:2: users[0].weight: must be in", text)
        self.assertIn(f"{self.users}:2: users[0].weight: must be in",
                      self.refused("--check-config", "--users-file",
                                   self.users))


class LogTest(WithFolder):
    CANARY = "nobody-else-writes-this-prompt"

    def test_s10_a_line_per_request(self):
        token = add_user(self.users, "ada")
        with Server({"tiny": TINY_MODEL}, "--users-file",
                    self.users) as server:
            ids = ["analyze", "--model", "tiny", "--token-ids", "3,1,41,59",
                   "--arm", "clean", "--arm", "top_k:1"]
            # Log lines follow their answers: the test waits for each line, so
            # that the lines are in the order of the calls.
            self.assertEqual(qkctl(server, *ids, token=token).returncode, 0)
            server.rpcs(1)
            qkctl(server, *ids, token="qks_wrong-token")
            server.rpcs(2)
            # The model has no tokenizer; the error must not show the text.
            bad = qkctl(server, "analyze", "--model", "tiny", "--prompt",
                        self.CANARY, token=token)
            self.assertEqual(bad.returncode, 4)
            server.rpcs(3)
            qkctl(server, "models", self.CANARY, token=token)
            lines = server.rpcs(4)
            good, denied, failed, unknown = lines
            self.assertIn(f"[request {failed['id']}]", bad.stderr)
            self.assertEqual(
                {key: good[key] for key in ("alias", "method", "model", "code",
                                            "reason", "prompt_tokens", "arms")},
                {"alias": "ada", "method": "Analyze", "model": "tiny",
                 "code": "OK", "reason": "", "prompt_tokens": 4, "arms": 2})
            self.assertGreater(good["bytes"], 0)
            self.assertGreater(good["total_ms"], 0)
            self.assertGreaterEqual(good["queue_ms"], 0)
            self.assertEqual((denied["alias"], denied["code"],
                              denied["reason"]),
                             ("", "UNAUTHENTICATED",
                              "missing or invalid token"))
            self.assertEqual(failed["code"], "FAILED_PRECONDITION")
            self.assertEqual((unknown["code"], unknown["reason"]),
                             ("NOT_FOUND", "bad request"))
            self.assertEqual(len({line["id"] for line in lines}), 4)
            for line in lines:
                self.assertRegex(line["id"], r"\A[0-9a-f]{16}\Z")
                self.assertNotIn("trace_id", line)
                self.assertNotIn("prompt", line)
                text = json.dumps(line)
                for secret in (token, "qks_", self.CANARY):
                    self.assertNotIn(secret, text)
                self.assertIsNone(re.search(r"(^|[^\w.-])/[\w.-]+/", text),
                                  text)

    def test_traceparent_and_request_id(self):
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        good = f"00-{trace}-{parent}-01".encode()
        with Server({"tiny": TINY_MODEL}) as server:
            answers = []
            for headers in ([(b"traceparent", good)], [],
                            [(b"traceparent", good + b"0")],
                            [(b"traceparent", good), (b"traceparent", good)]):
                with raw_grpc.connect(server.address) as connection:
                    answers.append(raw_grpc.call(connection, INFO, headers))
                lines = server.rpcs(len(answers))
        self.assertEqual(lines[0]["trace_id"], trace)
        self.assertEqual(lines[0]["parent_id"], parent)
        self.assertIs(lines[0]["sampled"], True)
        self.assertEqual(lines[0]["alias"], "anonymous")
        for answer, line in zip(answers, lines):
            self.assertIn(b"x-qkscope-request-id", answer.headers)
            self.assertIn(line["id"].encode(), answer.headers)
        for line in lines[1:]:
            self.assertNotIn("trace_id", line)

    def test_prompts_only_if_asked_for(self):
        config = self.folder / "q.conf"
        config.write_text("listen: '127.0.0.1:0' metrics_listen: '' "
                          "log_prompts: true")
        with Server({"tiny": TINY_MODEL}, "--config", config) as server:
            qkctl(server, "analyze", "--model", "tiny", "--prompt",
                  self.CANARY)
            server.rpcs(1)
            qkctl(server, "analyze", "--model", "tiny", "--prompt",
                  "x" * 10_000)
            short, long = server.rpcs(2)
        self.assertEqual(short["prompt"], self.CANARY)
        self.assertEqual(long["prompt"], "x" * 4096)


if __name__ == "__main__":
    unittest.main()
