"""Tests qkscoped behind HAProxy with the configuration in deploy/haproxy: who
gets through, what headers do, and floods that must not reach the server."""

import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import time
import unittest

import proxy_floods
import raw_grpc
from certificates import (Authority, client_context, client_flags,
                          old_client_context, tls_connect)
from processes import (PATIENCE_S, ROOT, TINY_MODEL, Server, metrics, qkctl,
                       resident_bytes, scratch_folder, wait_until)

EXIT_UNAVAILABLE = 3
EXIT_DENIED = 12
HERE = "DNS:localhost,IP:127.0.0.1"
INFO = "/qkscope.v1.Analysis/GetServerInfo"
HAPROXY = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
HEALTH = "/grpc.health.v1.Health/Check"


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def cpu_seconds(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ProxyTest(unittest.TestCase):

    CLIENT_CA = None  # that of the clients' certificates

    @classmethod
    def setUpClass(cls):
        folder = scratch_folder()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.ours = Authority(cls.folder, "ours")
        cls.theirs = Authority(cls.folder, "theirs")
        cls.client = cls.ours.issue("client", "alice")
        users = cls.folder / "users.conf"
        made = qkctl("127.0.0.1:1", "user", "add", "alice", "--users-file",
                     users)
        assert made.returncode == 0, made.stderr
        cls.token = made.stdout.strip()
        cls.server = Server({"tiny": TINY_MODEL}, "--users-file", users)
        cls.addClassCleanup(cls.server.stop)
        cls.address = free_address()
        cls.proxy = cls.start_proxy(cls.server.address)

    @classmethod
    def start_proxy(cls, backend):
        pair = cls.ours.issue("proxy", "proxy", HERE)
        chain = cls.folder / "proxy.pem"
        chain.write_text(pair.cert.read_text() + pair.key.read_text())
        proxy = subprocess.Popen(
            [HAPROXY, "-db", "-f", CONFIGURATION], stdin=subprocess.DEVNULL,
            env={**os.environ, "QKSCOPE_PROXY_LISTEN": cls.address,
                 "QKSCOPE_PROXY_CERT": str(chain),
                 "QKSCOPE_PROXY_CLIENT_CA": cls.CLIENT_CA or str(
                     cls.ours.cert),
                 "QKSCOPE_BACKEND": backend})
        cls.addClassCleanup(proxy.wait)
        cls.addClassCleanup(proxy.terminate)
        until = time.monotonic() + PATIENCE_S
        while cls.models(*cls.flags(cls.client)).returncode != 0:
            assert proxy.poll() is None, "haproxy did not start"
            assert time.monotonic() < until, "no call gets through haproxy"
            time.sleep(0.1)
        return proxy

    @classmethod
    def flags(cls, pair=None, ca=None):
        return client_flags(ca or cls.ours, pair)

    @classmethod
    def models(cls, *flags, **options):
        options.setdefault("token", cls.token)
        return qkctl(cls.address, *flags, "models", **options)

    def assert_no_connection(self, *flags):
        result = self.models(*flags)
        self.assertEqual(result.returncode, EXIT_UNAVAILABLE, result.stderr)

    def connect(self, context=None):
        return tls_connect(self.address, context or client_context(
            self.ours, self.client))

    # --- who gets through

    def test_s3_a_certificate_and_a_token(self):
        result = self.models(*self.flags(self.client))
        self.assertEqual(result.returncode, 0, result.stderr)
        streamed = qkctl(self.address, *self.flags(self.client), "analyze",
                         "--model", "tiny", "--token-ids", "1,2,3", "--json",
                         token=self.token)
        self.assertEqual(streamed.returncode, 0, streamed.stderr)
        self.assertIn("finished", streamed.stdout.splitlines()[-1])

    def test_s3_a_certificate_alone_is_nobody(self):
        result = self.models(*self.flags(self.client), token=None)
        self.assertEqual(result.returncode, EXIT_DENIED, result.stderr)
        self.assertIn("missing or invalid token", result.stderr)

    def test_s3_plaintext(self):
        self.assert_no_connection()

    def test_s3_no_client_certificate(self):
        self.assert_no_connection(*self.flags())

    def test_s3_client_of_another_authority(self):
        self.assert_no_connection(
            *self.flags(self.theirs.issue("alice2", "alice")))

    def test_s3_expired_client(self):
        self.assert_no_connection(
            *self.flags(self.ours.issue("late", "alice", days=(-9, -1))))

    def test_s3_client_that_is_not_valid_yet(self):
        self.assert_no_connection(
            *self.flags(self.ours.issue("early", "alice", days=(1, 9))))

    def test_s3_client_trusts_another_authority(self):
        self.assert_no_connection(*self.flags(self.client, ca=self.theirs))

    def test_s3_another_name(self):
        self.assert_no_connection(*self.flags(self.client),
                                  "--tls-server-name", "other.example")

    def test_s3_versions_and_alpn(self):
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
                              (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            with self.connect(client_context(
                    self.ours, self.client, minimum_version=version,
                    maximum_version=version)) as connection:
                self.assertEqual(connection.version(), name)
                self.assertEqual(connection.selected_alpn_protocol(), "h2")
                answer = raw_grpc.call(connection, HEALTH)
            self.assertIn(b"\x08\x01", answer.messages)

    def test_s3_tls_1_1(self):
        # tls_test.py shows that this client can speak TLS 1.1 to the server.
        context = old_client_context(self.ours, self.client)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with self.connect(context) as connection:
                raw_grpc.call(connection, HEALTH)

    # --- headers

    def test_s5_a_header_is_no_certificate(self):
        names = [(b"x-qkscope-client-cn", b"alice")]
        token = (b"authorization", b"Bearer " + self.token.encode())
        for headers, known in ((names, False), ([*names, token], True)):
            with self.connect() as connection:
                answer = raw_grpc.call(connection, INFO, headers)
            self.assertEqual(answer.messages != b"", known)
            # The same call goes straight to the server, over loopback.
            with raw_grpc.connect(self.server.address) as connection:
                direct = raw_grpc.call(connection, INFO, headers)
            self.assertEqual(direct.messages != b"", known)

    # --- floods

    def assert_serves(self):
        result = self.models(*self.flags(self.client))
        self.assertEqual(result.returncode, 0, result.stderr)

    def calls(self):
        """Returns how many calls the server has had, besides health checks."""
        return sum(metrics(self.server)["qkscope_rpc_started_total"].values())

    def test_s2_headers_that_unpack_to_gigabytes(self):
        before = cpu_seconds(self.server.process.pid)
        calls = self.calls()
        self.assertEqual(proxy_floods.send_bombs(self.connect, 50), 50)
        # No call has reached the server.
        self.assertEqual(self.calls(), calls)
        self.assertLess(cpu_seconds(self.server.process.pid) - before, 1)
        self.assert_serves()

    def test_s2_twenty_thousand_resets(self):
        pid = self.server.process.pid
        self.assert_serves()
        before = resident_bytes(pid)
        proxy_floods.send_resets(self.connect, 20_000)
        # The flooding client is shut out for a moment; then all is as before.
        wait_until(
            lambda: self.models(*self.flags(self.client)).returncode == 0,
            "no call gets through after the flood")
        self.assertLess(resident_bytes(pid) - before, 64 << 20)


class TokensAloneTest(ProxyTest):
    """The same proxy as docker-compose.yml starts it: clients need a token and
    no certificate."""

    CLIENT_CA = "none"

    def test_s3_no_client_certificate(self):
        result = self.models(*self.flags())
        self.assertEqual(result.returncode, 0, result.stderr)

    def assert_serves_whoever_shows_it(self, pair):
        result = self.models(*self.flags(pair))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_s3_client_of_another_authority(self):
        # Nobody asks for it, so nobody looks at it.
        self.assert_serves_whoever_shows_it(self.theirs.issue("a", "alice"))

    def test_s3_expired_client(self):
        self.assert_serves_whoever_shows_it(
            self.ours.issue("late", "alice", days=(-9, -1)))

    def test_s3_client_that_is_not_valid_yet(self):
        self.assert_serves_whoever_shows_it(
            self.ours.issue("early", "alice", days=(1, 9)))


class ConfigurationTest(unittest.TestCase):
    """haproxy.cfg without a decision about certificates starts nothing."""

    def check(self, **settings):
        with scratch_folder() as folder:
            authority = Authority(pathlib.Path(folder), "ours")
            pair = authority.issue("proxy", "proxy", HERE)
            chain = pathlib.Path(folder) / "proxy.pem"
            chain.write_text(pair.cert.read_text() + pair.key.read_text())
            return subprocess.run(
                [HAPROXY, "-c", "-f", CONFIGURATION], check=False,
                capture_output=True, encoding="utf-8",
                env={"QKSCOPE_PROXY_LISTEN": "127.0.0.1:7461",
                     "QKSCOPE_PROXY_CERT": str(chain),
                     "QKSCOPE_BACKEND": "127.0.0.1:1", **settings})

    def test_client_ca(self):
        self.assertEqual(
            self.check(QKSCOPE_PROXY_CLIENT_CA="none").returncode, 0)
        for wrong in ({}, {"QKSCOPE_PROXY_CLIENT_CA": ""},
                      {"QKSCOPE_PROXY_CLIENT_CA": "missing.crt"}):
            result = self.check(**wrong)
            self.assertNotEqual(result.returncode, 0, wrong)
            self.assertIn("ca-file", result.stderr)


if __name__ == "__main__":
    unittest.main()
