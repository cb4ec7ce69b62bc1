"""Checks the checksums and digests of a real server's streams with other
implementations: hashlib's SHA-256 and PyPI's crc32c.

The comments at Layer.crc32c and PayloadDigest in
proto/qkscope/v1/analysis.proto say what they cover.
"""

import collections
import copy
import hashlib
import math
import unittest

import crc32c
import grpc
from google.protobuf import text_format

from processes import PATIENCE_S, ROOT, TINY_MODEL, Server
from stubs import analysis, analysis_grpc, spec

GOLDENS = ROOT / "tests" / "goldens"
ARMS = "arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 2}}}"
ITEM_BYTES = {spec.F32: 4, spec.F16: 2, spec.BF16: 2}


def tokens(count):
    ids = " ".join(f"ids: {1 + i % 90}" for i in range(count))
    return f"token_ids {{{ids}}}"


def request(text):
    return text_format.Parse(text, analysis.AnalyzeRequest())


def key_of(message):
    """Returns what a PayloadDigest, or a Layer, refers to."""
    image = message.image if message.HasField("image") else None
    return (message.arm, image, message.phase, message.layer, message.point,
            message.stage)


def payloads_of(layers):
    """Returns {key: [payload of each step, in step order]} of Layer events;
    checks their chunks."""
    parts = collections.defaultdict(bytearray)  # by key and step
    totals = {}
    for layer in layers:
        place = (key_of(layer),
                 layer.step if layer.HasField("step") else -1)
        if crc32c.crc32c(layer.data) != layer.crc32c:
            raise AssertionError(f"{place}: the crc32c of a chunk is wrong")
        if len(parts[place]) != layer.offset or not layer.data:
            raise AssertionError(f"{place}: a chunk at {layer.offset} after "
                                 f"{len(parts[place])} bytes")
        parts[place] += layer.data
        size = math.prod(layer.shape) * ITEM_BYTES[layer.dtype]
        if totals.setdefault(place, size) != size or layer.total_bytes != size:
            raise AssertionError(f"{place}: its size changes")
    payloads = collections.defaultdict(list)
    for place, part in parts.items():
        if len(part) != totals[place]:
            raise AssertionError(f"{place}: {len(part)} bytes of "
                                 f"{totals[place]}")
    for (key, step) in sorted(parts, key=lambda place: place[1]):
        payloads[key].append(bytes(parts[key, step]))
    return dict(payloads)


def check_digests(payloads, digests, with_sha256):
    """Checks that each payload has one matching digest and none is left."""
    keys = [key_of(digest) for digest in digests]
    if sorted(map(repr, keys)) != sorted(map(repr, payloads)):
        raise AssertionError(f"digests of {keys}, payloads of "
                             f"{list(payloads)}")
    for digest in digests:
        whole = b"".join(payloads[key_of(digest)])
        sha256 = hashlib.sha256(whole).hexdigest() if with_sha256 else ""
        if ((digest.sha256, digest.crc32c, digest.bytes)
                != (sha256, crc32c.crc32c(whole), len(whole))):
            raise AssertionError(f"a wrong digest: {digest}")


class DigestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server({"tiny": TINY_MODEL,
                             "vl": GOLDENS / "tiny_qwen2_vl_image"})
        cls.addClassCleanup(cls.server.stop)
        channel = grpc.insecure_channel(cls.server.address)
        cls.addClassCleanup(channel.close)
        cls.stub = analysis_grpc.AnalysisStub(channel)

    def analyze(self, text_or_request):
        """Returns the Layer events and the manifest."""
        if isinstance(text_or_request, str):
            text_or_request = request(text_or_request)
        events = list(self.stub.Analyze(text_or_request, timeout=PATIENCE_S))
        self.assertTrue(events[-1].HasField("finished"))
        self.assertEqual(
            [event.seq for event in events if not event.HasField("accepted")],
            list(range(events[-1].finished.events + 1)))
        layers = [event.layer for event in events if event.HasField("layer")]
        self.assertEqual(sum(len(layer.data) for layer in layers),
                         events[-1].finished.streamed_bytes)
        return layers, events[-1].finished.manifest

    def check(self, text_or_request, digests, with_sha256=True):
        """Checks a stream with this many digests; returns its payloads."""
        layers, manifest = self.analyze(text_or_request)
        payloads = payloads_of(layers)
        self.assertEqual(len(payloads), digests)
        check_digests(payloads, manifest.digests, with_sha256)
        return layers, payloads

    def test_the_other_implementation(self):
        # The published check value of CRC-32C.
        self.assertEqual(crc32c.crc32c(b"123456789"), 0xE3069283)

    def test_norms(self):
        for form in ("NORM_OVER_TOKENS", "NORM_PER_TOKEN"):
            with self.subTest(form):
                # 2 arms, 2 layers, 3 points, 2 stages.
                self.check(f"model: 'tiny' input {{{tokens(20)}}} {ARMS} "
                           f"capture {{form: {form} stage: BEFORE_AND_AFTER}}",
                           digests=24)

    def test_raw_frames(self):
        for dtype in ("F32", "F16", "BF16"):
            with self.subTest(dtype):
                self.check(f"model: 'tiny' input {{{tokens(20)}}} {ARMS} "
                           "capture {form: RAW raw_sha256: true "
                           f"raw_dtype: {dtype} points: [HOOK_Q, HOOK_ROT_K, "
                           "HOOK_Z]}", digests=12)

    def test_raw_frames_have_a_checksum_alone_unless_asked(self):
        self.check(f"model: 'tiny' input {{{tokens(20)}}} "
                   "capture {form: RAW}", digests=6, with_sha256=False)

    def test_payloads_of_several_chunks(self):
        positions = ", ".join(map(str, range(250)))
        layers, payloads = self.check(
            f"model: 'tiny' input {{{tokens(250)}}} capture {{form: RAW "
            f"raw_sha256: true points: HOOK_PATTERN positions: [{positions}]}}",
            digests=2)
        self.assertEqual({len(p) for steps in payloads.values()
                          for p in steps}, {250 * 4 * 250 * 4})
        self.assertEqual(len(layers), 2 * 4)  # 1,000,000 bytes by 256 KiB

    def test_decode_steps(self):
        for form in ("RAW", "NORM_PER_TOKEN"):
            with self.subTest(form):
                # Prefill and decode have digests of their own.
                _, payloads = self.check(
                    f"model: 'tiny' input {{{tokens(9)}}} {ARMS} "
                    "generate {max_new_tokens: 5} capture "
                    f"{{form: {form} raw_sha256: true phase: BOTH}}",
                    digests=24)
                decoded = [steps for key, steps in payloads.items()
                           if key[2] == spec.DECODE]
                self.assertEqual(len(decoded), 12)
                for steps in decoded:
                    self.assertGreater(len(steps), 1)

    def test_decode_norms_over_tokens(self):
        self.check(f"model: 'tiny' input {{{tokens(9)}}} "
                   "generate {max_new_tokens: 5} capture {phase: BOTH}",
                   digests=12)

    def test_images(self):
        message = request(
            "model: 'vl' input {token_ids {ids: [1, 9, 92, 95, 93, 5, 92, 95, "
            "93, 6]}} capture {form: RAW raw_sha256: true vision_layers: [0, 1]"
            "}")
        for name in ("rgb.png", "yuv444.jpg"):
            image = message.input.images.add()
            image.encoded = (GOLDENS / "images" / name).read_bytes()
        # 2 layers and 3 points, for each of 2 images and the text.
        _, payloads = self.check(message, digests=18)
        self.assertEqual({key[1] for key in payloads}, {None, 0, 1})

    def test_what_is_wrong_is_noticed(self):
        layers, manifest = self.analyze(f"model: 'tiny' input {{{tokens(5)}}}")
        payloads = payloads_of(layers)
        check_digests(payloads, manifest.digests, with_sha256=True)
        changed = copy.deepcopy(layers)
        changed[3].data = bytes([changed[3].data[0] ^ 1]) + changed[3].data[1:]
        with self.assertRaisesRegex(AssertionError, "crc32c of a chunk"):
            payloads_of(changed)
        changed[3].crc32c = crc32c.crc32c(changed[3].data)
        with self.assertRaisesRegex(AssertionError, "a wrong digest"):
            check_digests(payloads_of(changed), manifest.digests, True)
        with self.assertRaisesRegex(AssertionError, "digests of"):
            check_digests(payloads, manifest.digests[1:], True)
        with self.assertRaisesRegex(AssertionError, "digests of"):
            check_digests(payloads_of(layers[1:]), manifest.digests, True)


if __name__ == "__main__":
    unittest.main()
