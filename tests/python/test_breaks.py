"""Killed servers, cut connections, Ctrl-C and full disks: each ends with one
clear sentence, and nothing half-written is left."""

import asyncio
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import unittest

import support
from certificates import Authority
from holding_proxy import HoldingProxy
from processes import (PATIENCE_S, PATIENT, TINY_MODEL, Server, demo_model,
                       qkctl, scratch_folder, wait_until, write_whole)

import qkscope
from qkscope import Arm, Capture, connect, connect_async
from qkscope.v1 import spec_pb2

IDS = [1 + i % 90 for i in range(200)]
# Megabytes, so that a proxy can hold the stream in the middle.
MUCH = {"capture": Capture(form="raw"), "arms": [
    Arm.clean(), *(Arm.random_k(1, seed=seed) for seed in range(1, 16))]}


def cut_when_held(proxy, times):
    """Cuts the proxy's connection each time it is held, in a thread."""
    def cut():
        for _ in range(times):
            if proxy.await_held(PATIENCE_S):
                proxy.cut()
    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    return thread


class Case(unittest.TestCase):

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def server(self, *flags, models=None, **options):
        config = self.folder / "q.conf"
        config.write_text(PATIENT + "shutdown_grace_s: 3600")
        if "--config" not in flags:
            flags = ["--config", config, *flags]
        server = Server(models or {"tiny": TINY_MODEL}, *flags, **options)
        self.addCleanup(server.stop)
        return server

    def proxy(self, server, *limits):
        proxy = HoldingProxy(server.address, limits)
        self.addCleanup(proxy.close)
        return proxy

    def lab(self, address, **options):
        lab = connect(address, **options)
        self.addCleanup(lab.close)
        return lab


class CutTest(Case):

    def test_cut_streams_are_errors_or_are_taken_up(self):
        server = self.server("--spool", self.folder / "spool")
        whole = self.lab(server.address).analyze("tiny", IDS, **MUCH)
        self.assertGreater(sum(len(t.data) for t in whole.tensors), 1200 << 10)
        limits = [3 << 10, 100_000, 1 << 20, 200_001]
        for limit in limits:
            proxy = self.proxy(server, limit)
            cut = cut_when_held(proxy, 1)
            with self.assertRaisesRegex(
                    qkscope.IncompleteStream,
                    "without Finished") as caught:
                self.lab(proxy.address).analyze("tiny", IDS, **MUCH)
            self.assertRegex(caught.exception.request_id, "[0-9a-f]{16}")
            cut.join()
        proxy = self.proxy(server, *limits)
        cut = cut_when_held(proxy, len(limits))
        run = self.lab(proxy.address).analyze("tiny", IDS, resumable=True,
                                              **MUCH)
        cut.join()
        self.assertEqual([bytes(t.data) for t in run.tensors],
                         [bytes(t.data) for t in whole.tensors])

        async def twin():
            proxy = self.proxy(server, *limits)
            cut = cut_when_held(proxy, len(limits))
            async with connect_async(proxy.address) as lab:
                run = await lab.analyze("tiny", IDS, resumable=True, **MUCH)
            cut.join()
            return run
        self.assertEqual([bytes(t.data) for t in asyncio.run(twin()).tensors],
                         [bytes(t.data) for t in whole.tensors])

    def test_a_server_killed_in_the_middle(self):
        server = self.server()
        proxy = self.proxy(server, 1 << 20)
        killed = threading.Thread(target=lambda: (
            proxy.await_held(PATIENCE_S), server.send_signal(signal.SIGKILL),
            server.wait(), proxy.release()))
        killed.start()
        with self.assertRaises(qkscope.IncompleteStream):
            self.lab(proxy.address).analyze("tiny", IDS, **MUCH)
        killed.join()
        with self.assertRaises(qkscope.Unavailable):
            self.lab(server.address, retries=0).models()

    def test_a_deadline_in_the_middle(self):
        server = self.server()
        seconds = 1.0
        while True:  # until the stream has begun before it
            proxy = self.proxy(server, 1 << 20)
            layers = []
            with self.assertRaises(qkscope.DeadlineExceeded):
                layers.extend(self.lab(proxy.address).stream(
                    "tiny", IDS, timeout=seconds, **MUCH))
            if proxy.await_held(0):
                return
            seconds *= 2
            self.assertLess(seconds, PATIENCE_S)

    def test_a_reader_that_leaves_ends_the_request(self):
        server = self.server()
        proxy = self.proxy(server, 1 << 20)
        lab = self.lab(server.address)
        with self.lab(proxy.address).stream("tiny", IDS, **MUCH) as stream:
            next(stream)
            self.assertEqual(len(lab.queue()), 1)
        wait_until(lambda: not lab.queue(), "a request without a reader")


class ControlCTest(Case):

    def program(self, server, body):
        """Runs a program that prints "ready" in the middle of its work; sends
        SIGINT then. Returns its exit status and standard error."""
        text = ("import sys, qkscope\n"
                f"lab = qkscope.connect({server.address!r})\n"
                "def ready(*_):\n"
                "    print('ready', flush=True)\n" + textwrap.dedent(body))
        process = subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8", cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(support.PACKAGE)})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.assertEqual(process.stdout.readline(), "ready\n",
                         process.poll() and process.stderr.read())
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=PATIENCE_S)[1]
        return process.returncode, errors

    def no_requests(self, server):
        lab = self.lab(server.address)
        wait_until(lambda: not lab.queue(), "requests after Ctrl-C")

    def test_in_a_long_map(self):
        server = self.server()
        code, errors = self.program(server, """
            try:
                for result in lab.map([[1 + i % 90] * 50 for i in range(10**6)],
                                      model="tiny", generate=30):
                    if result.index == 20:
                        ready()
            except KeyboardInterrupt:
                sys.exit("stopped")
            """)
        self.assertEqual((code, errors), (1, "stopped\n"))
        self.no_requests(server)

    def test_in_a_stream_and_in_an_async_map(self):
        server = self.server()
        held = self.proxy(server, 1 << 20)
        code, errors = self.program(held, """
            try:
                for layer in lab.stream(
                        "tiny", [1 + i % 90 for i in range(200)], arms=[
                            f"random_k:1,seed={i}" for i in range(16)],
                        capture=qkscope.Capture(form="raw")):
                    if layer.layer == 0:
                        ready()
            except KeyboardInterrupt:
                sys.exit("stopped")
            """)
        self.assertEqual((code, errors), (1, "stopped\n"))
        self.no_requests(server)
        code, errors = self.program(server, f"""
            import asyncio
            async def main():
                async with qkscope.connect_async({server.address!r}) as lab:
                    async for result in lab.map(
                            [[1 + i % 90] * 50 for i in range(10**6)],
                            model="tiny", generate=30):
                        if result.index == 20:
                            ready()
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                sys.exit("stopped")
            """)
        self.assertEqual((code, errors), (1, "stopped\n"))
        self.no_requests(server)

    def test_on_the_command_line(self):
        server = self.server()
        proxy = self.proxy(server, 1 << 20)
        out = self.folder / "out"
        out.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "qkscope", "analyze", "--server",
             proxy.address, "--model", "tiny", "--token-ids",
             ",".join(map(str, IDS)), "--form", "raw", "--out",
             out / "a.safetensors",
             *(word for i in range(16) for word in
               ("--arm", f"random_k:1,seed={i}"))],
            stderr=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(support.PACKAGE)})
        self.addCleanup(process.stderr.close)
        self.assertTrue(proxy.await_held(PATIENCE_S))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual((process.returncode, errors),
                         (8, "qkscope: cancelled\n"))
        self.assertEqual(list(out.iterdir()), [])
        self.no_requests(server)


class BadInputTest(Case):

    @classmethod
    def setUpClass(cls):
        cls.real = Server({"smollm2": demo_model()})
        cls.addClassCleanup(cls.real.stop)

    def sentence(self, kind, pattern, call):
        with self.assertRaises(kind) as caught:
            call()
        text = str(caught.exception)
        self.assertRegex(text, pattern)
        self.assertNotIn("\n", text)
        self.assertLess(len(text), 400)
        return caught.exception

    def test_requests(self):
        lab = self.lab(self.real.address)
        self.sentence(qkscope.NotFound, "model 'other' is not loaded; models",
                      lambda: lab.analyze("other", "x"))
        error = self.sentence(
            qkscope.InvalidRequest, "8192",
            lambda: lab.analyze("smollm2", [1] * 8193))
        self.assertTrue(error.field.startswith("input"), error.field)
        error = self.sentence(
            qkscope.InvalidRequest, "999 exceeds head_dim 64",
            lambda: lab.analyze("smollm2", "x", arms=["top_k:999"]))
        self.assertEqual(error.field, "arms[0].disruptions[0].top_k.k")
        self.sentence(qkscope.InvalidRequest, "is used by arms",
                      lambda: lab.analyze("smollm2", "x",
                                          arms=["clean", "clean"]))
        newer = spec_pb2.Capture.FromString(b"\xa2\x06\x01x")
        self.sentence(qkscope.VersionMismatch,
                      "unknown field 100.*older than this client",
                      lambda: lab.analyze("smollm2", "x", capture=newer))
        self.sentence(qkscope.InvalidRequest, "detach",
                      lambda: lab.detach("smollm2", "x"))
        self.sentence(qkscope.InvalidRequest, "out of range|outside",
                      lambda: lab.analyze("smollm2", [10 ** 12]))
        self.sentence(qkscope.Unavailable, "nosuch.invalid:1",
                      lambda: self.lab("nosuch.invalid:1",
                                       retries=0).models())

    def test_another_service(self):
        # The metrics port speaks HTTP/1, not gRPC.
        self.sentence(qkscope.Unavailable, "is a server running at",
                      lambda: self.lab(self.real.metrics_address,
                                       retries=0).models())

    def test_tokens(self):
        users = self.folder / "users.conf"
        token = qkctl("", "user", "add", "ada", "--users-file",
                      users).stdout.strip()
        config = self.folder / "u.conf"
        config.write_text(PATIENT + f'users_file: "{users}"')
        server = self.server("--config", config,
                             client_flags=["--token-file",
                                           self.token_file(token)])
        self.sentence(qkscope.Unauthenticated, "QKSCOPE_TOKEN",
                      lambda: self.lab(server.address).models())
        self.sentence(qkscope.Unauthenticated, "token",
                      lambda: self.lab(server.address, token="x").models())
        lab = self.lab(server.address, token_file=self.token_file(token))
        self.assertEqual(lab.usage()[0].user, "ada")
        self.sentence(qkscope.PermissionDenied, "operator",
                      lambda: lab.usage(all_users=True))

    def token_file(self, token):
        path = self.folder / "token"
        write_whole(path, token + "\n")
        return path

    def test_tls(self):
        authority = Authority(self.folder, "ca")
        pair = authority.issue("server", "localhost")
        server = self.server(
            "--tls-cert", pair.cert, "--tls-key", pair.key, client_flags=[
                "--tls-ca", authority.cert, "--tls-server-name", "localhost"])
        lab = self.lab(server.address, ca=authority.cert,
                       server_name="localhost")
        self.assertEqual(len(lab.models()), 1)
        for options in ({}, {"tls": True}, {"ca": authority.cert}):
            self.sentence(qkscope.Unavailable, "is a server running",
                          lambda options=options: self.lab(
                              server.address, retries=0, **options).models())


class ServerListTest(Case):

    def test_a_list_is_followed(self):
        listed = self.folder / "servers"
        one, other = (self.server("--replica", name) for name in "ab")
        lab = self.lab(f"file://{listed}", retries=0)
        with self.assertRaisesRegex(qkscope.Unavailable, "cannot be read"):
            lab.models()
        write_whole(listed, f"{one.address} a\n{other.address} b  # second\n")
        seen = wait_until(lambda: (lambda names: names == {"a", "b"} and names)(
            {lab.server_info().replica for _ in range(4)}), "both replicas")
        self.assertEqual(seen, {"a", "b"})
        one.stop()
        for _ in range(4):  # calls find the one that is there
            self.assertEqual(lab.server_info().replica, "b")
        write_whole(listed, f"{other.address} b\n")

        async def twin():
            async with connect_async(f"file://{listed}") as lab:
                return (await lab.server_info()).replica
        self.assertEqual(asyncio.run(twin()), "b")


class FullDiskTest(Case):

    def test_a_small_file_system(self):
        self.addCleanup(lambda: subprocess.run(["umount", self.folder / "fs"],
                                               check=False,
                                               capture_output=True))
        (self.folder / "fs").mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs",
             self.folder / "fs"], check=False, capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("mounting needs root")
        server = self.server()
        run = self.lab(server.address).analyze("tiny", IDS, **MUCH)
        path = self.folder / "fs" / "a.safetensors"
        path.write_text("old")
        with self.assertRaisesRegex(qkscope.BadFile,
                                    f"cannot write {path}: No space left"):
            run.to_safetensors(path)
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(list(path.parent.iterdir()), [path])
        result = subprocess.run(
            [sys.executable, "-m", "qkscope", "analyze", "--server",
             server.address, "--model", "tiny", "--form", "raw", "--token-ids",
             ",".join(map(str, IDS)), "--out", path],
            capture_output=True, encoding="utf-8", check=False,
            env={**os.environ, "PYTHONPATH": str(support.PACKAGE)})
        self.assertEqual(result.returncode, 13)
        self.assertTrue(re.fullmatch(r"qkscope: cannot write .*\n",
                                     result.stderr), result.stderr)
        self.assertEqual(list(path.parent.iterdir()), [path])


if __name__ == "__main__":
    unittest.main()
