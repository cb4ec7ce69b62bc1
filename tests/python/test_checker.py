"""The checks of streams: the cases of tests/client/cpp/stream_checker_test.cc,
and what only this client does."""

import copy
import unittest

import numpy as np
from fake_stream import fake_stream, index_of

from qkscope import wire
from qkscope.checker import StreamChecker
from qkscope.errors import IncompleteStream
from qkscope.slabs import Slabs
from qkscope.streams import RunBuilder
from qkscope.v1 import analysis_pb2 as v1
from qkscope.v1 import spec_pb2 as spec


def check(events):
    """Feeds all events; returns the tensors and the checker."""
    checker = StreamChecker()
    tensors = []
    for event in events:
        tensor = checker.add(wire.decode_event(event.SerializeToString()))
        if tensor is not None:
            tensors.append(tensor)
    return tensors, checker


def first_layer(events):
    return events[index_of(events, "layer")].layer


def manifest(events):
    return events[-1].finished.manifest


# Name -> (what breaks the stream, what the error says).
def _set(path, value):
    def change(events):
        setattr(path(events), *value)
    return change


def _missing(events):
    del events[4]


def _twice(events):
    events.insert(4, events[4])


def _layer_before_started(events):
    events[1], events[2] = events[2], events[1]
    events[1].seq = 0


def _started_twice(events):
    events.insert(2, copy.deepcopy(events[1]))
    events[2].seq = 1


def _wrong_checksum(events):
    data = bytearray(first_layer(events).data)
    data[0] ^= 1
    first_layer(events).data = bytes(data)


def _chunks_disagree(events):
    events[index_of(events, "layer") + 1].layer.heads.append(1)


def _empty_chunk(events):
    first_layer(events).data = b""
    first_layer(events).crc32c = 0


def _layers_descend(events):
    for event in events:
        if event.HasField("layer") and event.layer.arm == "clean":
            event.layer.layer = 1 - event.layer.layer


def _after_comparison(events):
    comparison = copy.deepcopy(events[index_of(events, "comparison")])
    comparison.seq = 1
    events[2] = comparison


def _same_tensor(events):
    for event in events:
        if event.HasField("layer") and event.layer.point == spec.HOOK_ROT_K:
            event.layer.point = spec.HOOK_ROT_Q


BREAKS = {
    "an event is missing": (_missing, "is missing"),
    "an event came twice": (_twice, "is missing"),
    "a layer before Started": (_layer_before_started, "before Started"),
    "Started twice": (_started_twice, "second Started"),
    "an unknown arm": (_set(first_layer, ("arm", "other")),
                       "not one of the request's"),
    "a wrong checksum": (_wrong_checksum, "checksum"),
    "a wrong offset": (_set(first_layer, ("offset", 16)),
                       "chunk at byte 16, expected 0"),
    "shape and bytes disagree": (_set(first_layer, ("total_bytes", 33)),
                                 "its shape needs"),
    "the shape overflows": (
        lambda e: first_layer(e).shape.extend([2147483647] * 3),
        "its shape needs -1"),
    "a negative shape": (lambda e: first_layer(e).shape.__setitem__(0, -2),
                         "its shape needs -1"),
    "chunks disagree": (_chunks_disagree, "chunks have different fields"),
    "an empty chunk": (_empty_chunk, "empty chunk"),
    "layers descend": (_layers_descend, "came after layer 1"),
    "a layer after the comparison": (_after_comparison,
                                     "after its arm's Comparison"),
    "the same tensor twice": (_same_tensor, "came twice"),
    "an image too many": (_set(first_layer, ("image", 0)),
                          "the request has 0 images"),
    "a negative image": (_set(first_layer, ("image", -1)),
                         "the request has 0 images"),
    "Finished counts other events": (
        _set(lambda e: e[-1].finished, ("events", 3)),
        "Finished counts 3 events"),
    "Finished counts other bytes": (
        _set(lambda e: e[-1].finished, ("streamed_bytes", 3)),
        "Finished counts 3 bytes"),
    "a digest differs": (
        _set(lambda e: manifest(e).digests[0], ("crc32c", 1)),
        "digest of arm 'clean', layer 0, HOOK_ROT_Q differs"),
    "a SHA-256 differs": (
        _set(lambda e: manifest(e).digests[0], ("sha256", "00")),
        "SHA-256 of arm 'clean', layer 0, HOOK_ROT_Q differs"),
    "a digest is missing": (
        lambda e: manifest(e).digests.pop(),
        "no digest of arm 'top_k:1', layer 1, HOOK_V"),
    "a digest of nothing": (
        _set(lambda e: manifest(e).digests[0], ("layer", 7)),
        "which never came"),
    "an event after Finished": (lambda e: e.append(e[-1]), "after Finished"),
}


class StreamCheckerTest(unittest.TestCase):

    def test_a_valid_stream(self):
        tensors, checker = check(fake_stream())
        self.assertTrue(checker.finished)
        self.assertEqual(len(tensors), 12)
        self.assertEqual(tensors[0].name, "clean/layer.0.hook_rot_q")

    def test_the_tower_and_the_text(self):
        tensors, _ = check(fake_stream(images=2))
        self.assertEqual(len(tensors), 2 * (2 * 3 + 2 * 3))
        self.assertEqual(tensors[1].name, "clean/image.1.vision.0.hook_rot_q")
        self.assertEqual(tensors[1].image, 1)

    def test_a_digest_of_the_tower_differs(self):
        events = fake_stream(images=1)
        for digest in manifest(events).digests:
            if digest.HasField("image"):
                digest.crc32c += 1
        with self.assertRaisesRegex(
                IncompleteStream, "image 0, vision layer 0, HOOK_ROT_Q"):
            check(events)
        events = fake_stream(images=1)
        for digest in manifest(events).digests:
            digest.ClearField("image")
        with self.assertRaises(IncompleteStream):
            check(events)

    def test_chunks_come_together(self):
        whole, _ = check(fake_stream())
        for size in (1, 5, 31, 32):
            tensors, checker = check(fake_stream(chunk_bytes=size))
            self.assertTrue(checker.finished)
            self.assertEqual(len(tensors), len(whole))
            for one, other in zip(tensors, whole):
                self.assertEqual(bytes(one.data), bytes(other.data))
                self.assertEqual(one.header.crc32c, other.header.crc32c)
                self.assertIsNotNone(one.statistics)

    def test_not_finished_without_finished(self):
        self.assertFalse(check(fake_stream()[:-1])[1].finished)

    def test_broken_streams(self):
        for name, (change, message) in BREAKS.items():
            with self.subTest(name):
                events = fake_stream(chunk_bytes=16)
                change(events)
                with self.assertRaises(IncompleteStream) as caught:
                    check(events)
                self.assertIn(message, str(caught.exception))
                self.assertEqual(caught.exception.code, "DATA_LOSS")

    def test_a_steps_frames_come_before_its_token(self):
        head = fake_stream()[:2]
        layer = fake_stream()[2]

        def decode(seq, step):
            event = copy.deepcopy(layer)
            event.seq, event.layer.phase = seq, spec.DECODE
            event.layer.step = step
            return event

        def token(seq, step):
            return v1.AnalyzeEvent(seq=seq, token=v1.Token(arm="clean",
                                                           step=step))

        check(head + [token(1, 0), decode(2, 0), token(3, 1), decode(4, 1),
                      token(5, 2)])
        with self.assertRaisesRegex(IncompleteStream,
                                    "came after its step's token"):
            check(head + [token(1, 0), token(2, 1), decode(3, 0)])
        with self.assertRaisesRegex(IncompleteStream, "after step 0"):
            check(head + [token(1, 0), token(2, 2)])

    def test_events_of_a_newer_server_pass(self):
        events = fake_stream()
        # Field 100 of the event, which this client does not know.
        unknown = v1.AnalyzeEvent.FromString(b"\xa2\x06\x01x")
        unknown.seq = 1
        events.insert(2, unknown)
        for i, event in enumerate(events[3:], 3):
            event.seq = i - 1
        events[-1].finished.events = events[-1].seq
        tensors, checker = check(events)
        self.assertTrue(checker.finished)
        self.assertEqual(len(tensors), 12)

    def test_a_request_for_more_memory_than_there_is(self):
        events = fake_stream(chunk_bytes=16, form=spec.RAW)
        layer = first_layer(events)
        layer.shape[:] = [1 << 20, 1 << 20, 1 << 19]
        layer.total_bytes = 1 << 61
        with self.assertRaisesRegex(IncompleteStream, "more than there are"):
            check(events)


class LargeLayersTest(unittest.TestCase):
    """Payloads that protobuf does not parse."""

    def events(self):
        return fake_stream(layers=1, arms=("clean",), shape=(64, 256),
                           chunk_bytes=48 << 10)

    def test_the_same_as_protobuf(self):
        for event in self.events():
            raw = event.SerializeToString()
            decoded = wire.decode_event(raw)
            parsed = wire.from_message(v1.AnalyzeEvent.FromString(raw))
            self.assertEqual(decoded.seq, parsed.seq)
            self.assertEqual(decoded.kind, parsed.kind)
            self.assertEqual(decoded.body, parsed.body)
            self.assertEqual(bytes(decoded.data), bytes(parsed.data))

    def test_no_second_copy(self):
        event = self.events()[2]
        self.assertGreater(len(event.layer.data), 32 << 10)
        raw = event.SerializeToString()
        decoded = wire.decode_event(raw)
        self.assertIs(decoded.data.obj, raw)
        whole = fake_stream(layers=1, arms=("clean",), shape=(64, 256))
        raws = [event.SerializeToString() for event in whole]
        builder = RunBuilder()
        tensors = [builder.add(wire.decode_event(raw)) for raw in raws]
        values = tensors[2].values
        received = np.frombuffer(raws[2], np.uint8)
        self.assertTrue(np.shares_memory(values, received))
        self.assertFalse(values.flags.writeable)
        self.assertEqual(values[0, 3], 40)

    def test_tensors_in_one_slab_are_apart(self):
        options = {"shape": (64, 256), "chunk_bytes": 1000}
        whole, _ = check(fake_stream(**options))
        events = fake_stream(**options)
        events[1].started.estimate.streamed_bytes = 1 << 30
        tensors, _ = check(events)
        self.assertEqual([bytes(t.data) for t in tensors],
                         [bytes(t.data) for t in whole])

    def test_slabs(self):
        slabs = Slabs(1 << 30)
        parts = [slabs.take(size) for size in (100, 1, 5 << 20, 0, 77)]
        for i, part in enumerate(parts):
            part[:] = i
        for i, part in enumerate(parts):
            self.assertTrue((part == i).all())
        self.assertIs(parts[0].base, parts[1].base)
        self.assertEqual(len(parts[0].base), 32 << 20)
        for _ in range(8):  # the slab is full; the next one begins
            last = slabs.take(5 << 20)
        self.assertIsNot(last.base, parts[0].base)
        self.assertIsNone(slabs.take(20 << 20).base)
        self.assertIsNone(Slabs(1000).take(100).base)

    def test_unusual_messages_are_protobufs_business(self):
        event = self.events()[2]
        raw = event.SerializeToString()
        data = event.layer.data
        part = v1.AnalyzeEvent(layer=v1.Layer(arm="other", data=data))
        # A second layer is merged into the first; the last data count.
        for strange in (raw + part.SerializeToString(),
                        raw + b"\xa2\x06\x01x"):
            decoded = wire.decode_event(strange)
            parsed = v1.AnalyzeEvent.FromString(strange)
            self.assertEqual(bytes(decoded.data), parsed.layer.data)
            self.assertEqual(decoded.body.arm, parsed.layer.arm)
        for broken in (raw[:-1], raw[:40000], b"\x22\xff" + raw):
            with self.assertRaises(Exception):
                wire.decode_event(broken)

    def test_a_flipped_bit_is_found(self):
        events = self.events()
        layer = first_layer(events)
        data = bytearray(layer.data)
        data[20000] ^= 4
        layer.data = bytes(data)
        with self.assertRaisesRegex(IncompleteStream, "checksum"):
            check(events)


if __name__ == "__main__":
    unittest.main()
