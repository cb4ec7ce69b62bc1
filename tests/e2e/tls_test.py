"""Tests TLS with real processes: who gets through, changing certificates."""

import hashlib
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import unittest

import raw_grpc
from certificates import (Authority, client_context, client_flags, encrypt_key,
                          old_client_context, tls_connect)
from processes import BIN, PATIENCE_S, TINY_MODEL, Server, Stalled, qkctl
from processes import scratch_folder, wait_until

EXIT_UNAVAILABLE = 3
EXIT_DENIED = 12
EX_CONFIG = 78
HERE = "DNS:localhost,IP:127.0.0.1"
INFO = "/qkscope.v1.Analysis/GetServerInfo"
TOKEN = "qks_token-of-eve"
TOKEN_SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = scratch_folder()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.ours = Authority(cls.folder, "ours")
        cls.theirs = Authority(cls.folder, "theirs")
        cls.server_pair = cls.ours.issue("server", "qkscoped", HERE)
        cls.alice = cls.ours.issue("alice", "alice")
        cls.bob = cls.ours.issue("bob", "bob")
        cls.users = cls.folder / "users.conf"
        cls.users.write_text(
            "users { alias: 'ali' subject: 'alice' }\n"
            f"users {{ alias: 'eve' token_sha256: '{TOKEN_SHA256}' }}\n")
        cls.mutual = cls.serve(cls.server_pair, "--tls-client-ca",
                               cls.ours.cert, "--users-file", cls.users,
                               client_flags=cls.flags(cls.alice))

    @classmethod
    def serve(cls, pair, *flags, client_flags):
        server = Server({"tiny": TINY_MODEL}, "--tls-cert", pair.cert,
                        "--tls-key", pair.key, *flags,
                        client_flags=client_flags)
        cls.addClassCleanup(server.stop)
        return server

    @classmethod
    def flags(cls, pair=None, ca=None):
        return client_flags(ca or cls.ours, pair)

    def models(self, *flags, server=None, token=None):
        return qkctl((server or self.mutual).address, *flags, "models",
                     token=token)

    def assert_no_connection(self, *flags, server=None):
        result = self.models(*flags, server=server)
        self.assertEqual(result.returncode, EXIT_UNAVAILABLE, result.stderr)
        return result.stderr

    def context(self, pair=None, **versions):
        return client_context(self.ours, pair, **versions)

    def connect(self, context, server=None):
        return tls_connect((server or self.mutual).address, context)

    def lines(self, alias, answer=None):
        """Returns how many calls in the log have this alias: all, or only the
        one with the answer `answer`."""
        return sum(line["alias"] == alias for line in self.mutual.rpcs()
                   if answer is None or line["id"].encode() in answer.headers)

    def await_line(self, *what, over=0):
        wait_until(lambda: self.lines(*what) > over, self.mutual.log_text)

    # --- connections that are silent

    def test_s14_silent_connections_end(self):
        config = self.folder / "impatient.conf"
        config.write_text("keepalive_s: 2 keepalive_timeout_s: 1")
        server = self.serve(self.server_pair, "--config", config,
                            client_flags=self.flags())
        hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(20)

        def plain(sent):
            connection = raw_grpc.connect(server.address)
            connection.sendall(sent)
            return connection

        def handshaken(sent):
            connection = self.connect(self.context(), server)
            connection.sendall(sent)
            return connection

        for what, connect in (
                ("silent", lambda: plain(b"")),
                ("half a handshake", lambda: plain(hello)),
                ("silent after its handshake", lambda: handshaken(b"")),
                ("silent after HTTP/2's preface", lambda: handshaken(
                    raw_grpc.PREFACE + raw_grpc.frame(
                        raw_grpc.SETTINGS, 0, 0, b"")))):
            with self.subTest(what), connect() as connection:
                start = time.monotonic()
                # gRPC's own limit is 120 s.
                connection.settimeout(60)
                try:
                    while connection.recv(4096):
                        pass
                except (ConnectionError, ssl.SSLError) as error:
                    self.assertNotIsInstance(error, TimeoutError)
                print(f"S14: {what}: closed after "
                      f"{time.monotonic() - start:.1f} s")

    # --- who gets through

    def test_s3_a_certificate_names_its_user(self):
        seen = self.lines("ali")
        self.assertEqual(self.models(*self.flags(self.alice)).returncode, 0)
        self.await_line("ali", over=seen)

    def test_s3_a_certificate_of_nobody(self):
        result = self.models(*self.flags(self.bob))
        self.assertEqual(result.returncode, EXIT_DENIED, result.stderr)
        self.assertIn("missing or invalid token", result.stderr)

    def test_s3_a_token_goes_before_the_certificate(self):
        for pair in (self.alice, self.bob):
            seen = self.lines("eve")
            result = self.models(*self.flags(pair), token=TOKEN)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.await_line("eve", over=seen)
        result = self.models(*self.flags(self.alice), token="wrong")
        self.assertEqual(result.returncode, EXIT_DENIED)

    def test_s3_a_header_is_no_certificate(self):
        for pair, refused in ((self.bob, True), (self.alice, False)):
            for name in (b"x-qkscope-client-cn", b"x-ssl-client-cn"):
                with self.connect(self.context(pair)) as connection:
                    answer = raw_grpc.call(
                        connection, INFO, [(name, b"eve"), (name, b"alice")])
                self.assertEqual(
                    b"missing or invalid token" in answer.headers, refused)
                self.assertEqual(answer.messages == b"", refused)
                self.await_line("" if refused else "ali", answer)

    def test_s3_plaintext(self):
        text = self.assert_no_connection()
        self.assertIn("without TLS: see --tls", text)

    def test_s3_no_client_certificate(self):
        text = self.assert_no_connection(*self.flags())
        self.assertIn("see --tls-ca, --tls-server-name, --tls-cert "
                      "and --tls-key", text)
        # A token does not help either.
        result = self.models(*self.flags(), token=TOKEN)
        self.assertEqual(result.returncode, EXIT_UNAVAILABLE)

    def test_s3_client_of_another_authority(self):
        self.assert_no_connection(
            *self.flags(self.theirs.issue("alice2", "alice")))

    def test_s3_client_that_is_its_own_authority(self):
        self.assert_no_connection(*self.flags(Authority(self.folder, "alice3")))

    def test_s3_expired_client(self):
        self.assert_no_connection(
            *self.flags(self.ours.issue("late", "alice", days=(-9, -1))))

    def test_s3_client_that_is_not_valid_yet(self):
        self.assert_no_connection(
            *self.flags(self.ours.issue("early", "alice", days=(1, 9))))

    def test_s3_client_trusts_another_authority(self):
        self.assert_no_connection(*self.flags(self.alice, ca=self.theirs))
        # The system's authorities do not know ours either.
        self.assert_no_connection("--tls", "--tls-cert", self.alice.cert,
                                  "--tls-key", self.alice.key)

    def test_s3_client_with_the_key_of_another(self):
        self.assert_no_connection(
            "--tls-ca", self.ours.cert, "--tls-cert", self.alice.cert,
            "--tls-key", self.bob.key)

    def test_s3_names_of_the_server(self):
        named = self.serve(self.ours.issue("named", "x", "DNS:qk.example"),
                           client_flags=[*self.flags(), "--tls-server-name",
                                         "qk.example"])
        self.assertEqual(qkctl(named, "models").returncode, 0)
        self.assert_no_connection(*self.flags(), server=named)
        self.assert_no_connection(*self.flags(), "--tls-server-name",
                                  "other.example", server=named)

    def test_s3_expired_server(self):
        process = subprocess.Popen(
            [BIN / "qkscoped", "--listen", "127.0.0.1:0", "--metrics-listen",
             "", "--model", f"t={TINY_MODEL}", "--tls-cert",
             (pair := self.ours.issue("old", "x", HERE, (-9, -1))).cert,
             "--tls-key", pair.key], stderr=subprocess.PIPE, encoding="utf-8")
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertIn("the certificate is not valid now",
                      process.stderr.readline())
        address = json.loads(process.stderr.readline())["listen"]
        result = qkctl(address, *self.flags(), "models")
        self.assertEqual(result.returncode, EXIT_UNAVAILABLE, result.stderr)

    def test_s3_tls_without_client_certificates(self):
        server = self.serve(self.server_pair, "--users-file", self.users,
                            client_flags=self.flags())
        self.assertEqual(qkctl(server, "models", token=TOKEN).returncode, 0)
        self.assertEqual(qkctl(server, "models").returncode, EXIT_DENIED)
        # A certificate that the server did not ask for has no effect.
        result = self.models(*self.flags(self.alice), server=server)
        self.assertEqual(result.returncode, EXIT_DENIED)

    def test_s3_files_that_do_not_belong_to_flags(self):
        for flags, named in ((["--tls-cert", self.alice.cert], "--tls-key"),
                             (["--tls-key", self.alice.key], "--tls-cert")):
            result = self.models(*flags)
            self.assertEqual(result.returncode, 2)
            self.assertIn(named, result.stderr)

    # --- the protocol

    def test_s3_versions_and_alpn(self):
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
                              (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            context = self.context(self.alice, minimum_version=version,
                                   maximum_version=version)
            with self.connect(context) as connection:
                self.assertEqual(connection.version(), name)
                self.assertEqual(connection.selected_alpn_protocol(), "h2")
                answer = raw_grpc.call(connection, INFO)
            self.assertGreater(len(answer.messages), 5)

    def old_context(self):
        return old_client_context(self.ours, self.alice)

    def test_s3_tls_1_1(self):
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with self.connect(self.old_context()) as connection:
                raw_grpc.call(connection, INFO)

    def test_s3_the_client_of_tls_1_1_could_speak_it(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_pair.cert, self.server_pair.key)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def accept():
                connection, _ = listener.accept()
                context.wrap_socket(connection, server_side=True).close()
            thread = threading.Thread(target=accept)
            thread.start()
            plain = socket.create_connection(listener.getsockname(),
                                             PATIENCE_S)
            with self.old_context().wrap_socket(
                    plain, server_hostname="localhost") as connection:
                self.assertEqual(connection.version(), "TLSv1.1")
            thread.join(PATIENCE_S)

    def test_s3_http_1_is_not_spoken(self):
        context = self.context(self.alice)
        context.set_alpn_protocols(["http/1.1"])
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with self.connect(context) as connection:
                raw_grpc.call(connection, INFO)

    # --- files that stop the start

    def refused(self, cert, key, *flags):
        result = subprocess.run(
            [BIN / "qkscoped", "--listen", "127.0.0.1:0", "--metrics-listen",
             "", "--model", f"t={TINY_MODEL}", "--tls-cert", cert, "--tls-key",
             key, *flags], capture_output=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, timeout=PATIENCE_S, check=False)
        self.assertEqual(result.returncode, EX_CONFIG, result.stderr)
        self.assertNotIn("listening", result.stderr)
        self.assertNotIn("PRIVATE", result.stderr)
        return result.stderr

    def test_s3_files_that_stop_the_start(self):
        cert, key = self.server_pair.cert, self.server_pair.key
        self.assertIn(f"tls.key_file: {self.bob.key}: does not match the "
                      f"certificate in {cert}",
                      self.refused(cert, self.bob.key))
        garbage = self.folder / "garbage"
        garbage.write_text("not PEM at all\n")
        garbage.chmod(0o600)
        self.assertIn(f"tls.key_file: {garbage}: has no PEM private key",
                      self.refused(cert, garbage))
        self.assertIn(f"tls.certificate_file: {garbage}: has no PEM certificate",
                      self.refused(garbage, key))
        self.assertIn(f"tls.client_ca_file: {garbage}: has no PEM certificate",
                      self.refused(cert, key, "--tls-client-ca", garbage))
        none = self.folder / "none"
        self.assertIn(f"tls.key_file: {none}: cannot be read",
                      self.refused(cert, none))
        self.assertIn(f"tls.certificate_file: {none}: cannot be read",
                      self.refused(none, key))
        locked = self.folder / "locked"
        encrypt_key(key, locked)
        locked.chmod(0o600)
        self.assertIn(f"tls.key_file: {locked}: has no PEM private key",
                      self.refused(cert, locked))
        shown = self.folder / "shown"
        shutil.copy(key, shown)
        shown.chmod(0o644)
        self.assertIn(f"tls.key_file: {shown}: must be neither world-readable",
                      self.refused(cert, shown))
        self.assertIn(f"tls.key_file: {shown}: must be neither world-readable",
                      self.refused(cert, shown, "--check-config"))

    # --- certificates that change

    def serial(self, server):
        with self.connect(self.context(self.alice), server) as connection:
            return connection.getpeercert()["serialNumber"]

    def replace(self, path, source):
        temporary = path.with_suffix(".new")
        shutil.copy(source, temporary)
        temporary.replace(path)

    def test_s3_certificates_change_while_a_stream_runs(self):
        live = self.ours.issue("live", "x", HERE)
        authorities = self.folder / "authorities"
        shutil.copy(self.ours.cert, authorities)
        server = self.serve(live, "--tls-client-ca", authorities,
                            client_flags=self.flags(self.alice))
        first = self.serial(server)
        with Stalled(server) as stream:
            # A mismatched certificate leaves the old one in use.
            next_pair = self.ours.issue("next", "y", HERE)
            self.replace(live.cert, next_pair.cert)
            server.await_log("tls_not_reloaded", 1)
            self.assertIn("does not match the certificate in", server.log_text())
            self.assertEqual(self.serial(server), first)
            self.replace(live.key, next_pair.key)
            server.await_log("tls_reloaded", 1)
            self.assertNotEqual(self.serial(server), first)
            self.assertEqual(qkctl(server, "models").returncode, 0)
            # Other clients are trusted now; the stream's connection stays.
            self.replace(authorities, self.theirs.cert)
            server.await_log("tls_reloaded", 2)
            self.assert_no_connection(*self.flags(self.alice), server=server)
            result = self.models(
                *self.flags(self.theirs.issue("carol", "carol")),
                server=server)
            self.assertEqual(result.returncode, 0, result.stderr)
            stream.release()
            code, events, err = stream.finish()
        self.assertEqual(code, 0, err)
        self.assertIn("finished", events[-1])


if __name__ == "__main__":
    unittest.main()
