"""Checks an Analyze stream event by event: sequence numbers without gaps, the
guaranteed order, complete tensors with the right checksums, and at the end that
the manifest's digests match what arrived.

Pure: it makes no calls, and both call layers use it. IncompleteStream describes
the first violation.
"""

from __future__ import annotations

import hashlib
from typing import Any, Optional

import numpy as np

from qkscope.crc32c import combine, crc32c
from qkscope.errors import IncompleteStream, incomplete
from qkscope.slabs import Slabs
from qkscope.tensor import (LayerResult, TensorKey, shape_bytes, tensor_key,
                            tensor_name)
from qkscope.v1 import analysis_pb2, spec_pb2
from qkscope.wire import Event


def violation(what: str) -> IncompleteStream:
    return incomplete(f"broken stream: {what}")


class _Partial:
    """A tensor of which some chunks have arrived."""

    def __init__(self, layer: analysis_pb2.Layer, memory: Slabs) -> None:
        self.header = layer
        try:
            self.data = memory.take(layer.total_bytes)
        except (MemoryError, ValueError):
            raise violation(f"{tensor_name(layer)} needs {layer.total_bytes} "
                            "bytes, more than there are") from None
        self.have = 0
        self.crc32c = 0
        self.essence = _essence(layer)


class _Digest:
    """Of the payloads of one (arm, image, phase, layer, point, stage)."""

    __slots__ = ("bytes", "crc32c", "sha256")

    def __init__(self) -> None:
        self.bytes = 0
        self.crc32c = 0
        self.sha256: Any = None


def _essence(layer: analysis_pb2.Layer) -> bytes:
    """What the chunks of one tensor have in common."""
    copy = analysis_pb2.Layer()
    copy.CopyFrom(layer)
    for field in ("offset", "crc32c", "statistics"):
        copy.ClearField(field)
    return copy.SerializeToString()


def _place(image: int, layer: int) -> str:
    return (f"layer {layer}" if image < 0
            else f"image {image}, vision layer {layer}")


def _point(point: int) -> str:
    value = spec_pb2.HookPoint.DESCRIPTOR.values_by_number.get(point)
    return value.name if value is not None else str(point)


class StreamChecker:
    """One stream, over one or several calls."""

    def __init__(self) -> None:
        self.events = 0  # those with a sequence number so far
        self.started = False
        self.finished = False
        self._hash_payloads = True
        self._images = 0  # of the request
        self._arms: set[str] = set()
        self._compared: set[str] = set()
        self._last_token: dict[str, int] = {}
        self._last_layer: dict[tuple[str, int, int, int], int] = {}
        self._partial: dict[TensorKey, _Partial] = {}
        self._complete: set[TensorKey] = set()
        self._digests: dict[tuple[str, int, int, int, int, int], _Digest] = {}
        self._payload_bytes = 0
        self._memory = Slabs(0)

    def add(self, event: Event) -> Optional[LayerResult]:
        """Checks the next event; returns a tensor if the event completes one.
        IncompleteStream: what is wrong."""
        if self.finished:
            raise violation("an event after Finished")
        kind = event.kind
        if kind == "accepted":
            return None
        if event.seq != self.events:
            raise violation(
                f"event {self.events} is missing, got {event.seq}")
        self.events += 1
        if not self.started and kind != "started":
            raise violation(f"event {event.seq} came before Started")
        if kind == "layer":
            key = tensor_key(event.body)
            self._check_order(event.body, key)
            return self._add_chunk(event.body, key, event.data)
        if kind == "started":
            self._check_started(event.body)
        elif kind in ("applied", "comparison", "logits"):
            self._check_arm(event.body.arm)
            if kind == "comparison":
                self._compared.add(event.body.arm)
        elif kind == "token":
            self._check_token(event.body)
        elif kind == "finished":
            self._check_finished(event.seq, event.body)
        return None  # Of a newer server's event, only the seq is checked.

    def _check_started(self, started: analysis_pb2.Started) -> None:
        if self.started:
            raise violation("a second Started")
        self.started = True
        capture = started.expanded.capture
        self._hash_payloads = (capture.form != spec_pb2.RAW
                               or capture.raw_sha256)
        self._images = len(started.expanded.input.images)
        self._arms = {arm.name for arm in started.expanded.arms}
        self._memory = Slabs(started.estimate.streamed_bytes)

    def _check_arm(self, arm: str) -> None:
        if arm not in self._arms:
            raise violation(f"arm '{arm}' is not one of the request's")

    def _check_token(self, token: analysis_pb2.Token) -> None:
        self._check_arm(token.arm)
        last = self._last_token.get(token.arm)
        if last is not None and token.step != last + 1:
            raise violation(f"token of step {token.step} of arm '{token.arm}' "
                            f"after step {last}")
        self._last_token[token.arm] = token.step

    def _check_order(self, layer: analysis_pb2.Layer, key: TensorKey) -> None:
        arm, image, phase, index, _, _, step = key
        self._check_arm(arm)
        if (layer.HasField("image") if image < 0 else image >= self._images):
            raise violation(f"{tensor_name(layer)}: the request has "
                            f"{self._images} images")
        place = arm, image, phase, step
        last = self._last_layer.get(place)
        if last is not None and index < last:
            raise violation(f"{tensor_name(layer)} came after layer {last}")
        self._last_layer[place] = index
        if phase == spec_pb2.PREFILL and arm in self._compared:
            raise violation(
                f"{tensor_name(layer)} came after its arm's Comparison")
        if step >= 0 and self._last_token.get(arm, -1) > step:
            raise violation(
                f"{tensor_name(layer)} came after its step's token")

    def _check_chunk(self, layer: analysis_pb2.Layer, data: memoryview,
                     have: int) -> None:
        """Checks a chunk's numbers after `have` bytes of its tensor."""
        needed = shape_bytes(layer)
        if needed != layer.total_bytes:
            raise violation(f"{tensor_name(layer)} has {layer.total_bytes} "
                            f"bytes, its shape needs {needed}")
        if crc32c(data) != layer.crc32c:
            raise violation(f"{tensor_name(layer)}: checksum of the chunk at "
                            f"byte {layer.offset} is wrong")
        if layer.offset != have:
            raise violation(f"{tensor_name(layer)}: chunk at byte "
                            f"{layer.offset}, expected {have}")
        if not data and layer.total_bytes > 0:
            raise violation(f"{tensor_name(layer)}: an empty chunk")
        if have + len(data) > layer.total_bytes:
            raise violation(f"{tensor_name(layer)}: more data than its "
                            f"{layer.total_bytes} bytes")

    def _add_chunk(self, layer: analysis_pb2.Layer, key: TensorKey,
                   data: memoryview) -> Optional[LayerResult]:
        if key in self._complete:
            raise violation(f"{tensor_name(layer)} came twice")
        partial = self._partial.get(key)
        self._check_chunk(layer, data, partial.have if partial else 0)
        if partial is None and len(data) == layer.total_bytes:
            return self._complete_tensor(layer, key, data, layer.crc32c)
        if partial is None:
            partial = self._partial[key] = _Partial(layer, self._memory)
        elif partial.essence != _essence(layer):
            raise violation(
                f"{tensor_name(layer)}: its chunks have different fields")
        if layer.HasField("statistics"):
            partial.header.statistics.CopyFrom(layer.statistics)
        end = partial.have + len(data)
        partial.data[partial.have:end] = np.frombuffer(data, np.uint8)
        partial.have = end
        partial.crc32c = combine(partial.crc32c, layer.crc32c, len(data))
        if end < layer.total_bytes:
            return None
        del self._partial[key]
        return self._complete_tensor(partial.header, key, partial.data.data,
                                     partial.crc32c)

    def _complete_tensor(self, header: analysis_pb2.Layer, key: TensorKey,
                         data: memoryview, crc: int) -> LayerResult:
        header.ClearField("offset")
        header.crc32c = crc
        self._complete.add(key)
        digest = self._digests.get(key[:6])
        if digest is None:
            digest = self._digests[key[:6]] = _Digest()
            digest.crc32c = crc
        else:
            digest.crc32c = combine(digest.crc32c, crc, len(data))
        digest.bytes += len(data)
        if self._hash_payloads:
            if digest.sha256 is None:
                digest.sha256 = hashlib.sha256(data)
            else:
                digest.sha256.update(data)
        self._payload_bytes += len(data)
        return LayerResult(header, data)

    def _check_finished(self, seq: int,
                        finished: analysis_pb2.Finished) -> None:
        if finished.events != seq:
            raise violation(f"Finished counts {finished.events} events, but "
                            f"its seq is {seq}")
        for partial in self._partial.values():
            raise violation(f"{tensor_name(partial.header)} is incomplete")
        if finished.streamed_bytes != self._payload_bytes:
            raise violation(
                f"Finished counts {finished.streamed_bytes} bytes of payload, "
                f"got {self._payload_bytes}")
        for digest in finished.manifest.digests:
            self._check_digest(digest)
        for arm, image, _, layer, point, _ in self._digests:
            raise violation(f"the manifest has no digest of arm '{arm}', "
                            f"{_place(image, layer)}, {_point(point)}")
        self.finished = True

    def _check_digest(self, digest: analysis_pb2.PayloadDigest) -> None:
        image = digest.image if digest.HasField("image") else -1
        got = self._digests.pop((digest.arm, image, digest.phase, digest.layer,
                                 digest.point, digest.stage), None)
        if (got is not None and got.bytes == digest.bytes
                and got.crc32c == digest.crc32c
                and not (digest.sha256 and self._hash_payloads
                         and got.sha256.hexdigest() != digest.sha256)):
            return
        what = (f"arm '{digest.arm}', {_place(image, digest.layer)}, "
                f"{_point(digest.point)}")
        if got is None:
            raise violation(
                f"the manifest has a digest of {what}, which never came")
        if got.bytes != digest.bytes or got.crc32c != digest.crc32c:
            raise violation(f"the manifest's digest of {what} differs")
        raise violation(f"the manifest's SHA-256 of {what} differs")
