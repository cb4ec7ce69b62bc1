"""Events of Analyze as they come off the wire.

A Layer's payload stays where gRPC has put it: numpy looks at the received
bytes, and protobuf parses only what stands around them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from qkscope.v1 import analysis_pb2

# Below this size, parsing the whole message is faster than looking into it.
_SMALL = 16 << 10

_EVENT_SEQ = 1
_EVENT_LAYER = 4
_LAYER_DATA = 11


class Event(NamedTuple):
    """One AnalyzeEvent: `body` is the message of its kind ("layer",
    "started", ...), without the data of a layer, which is `data`."""
    seq: int
    kind: Optional[str]
    body: Any
    data: memoryview


_NO_DATA = memoryview(b"")


def from_message(event: analysis_pb2.AnalyzeEvent) -> Event:
    """The event of a parsed message, which it may change."""
    kind = event.WhichOneof("event")
    if kind is None:  # of a newer server
        return Event(event.seq, None, None, _NO_DATA)
    body = getattr(event, kind)
    if kind != "layer":
        return Event(event.seq, kind, body, _NO_DATA)
    data = memoryview(body.data)
    body.ClearField("data")
    return Event(event.seq, kind, body, data)


def decode_event(raw: bytes) -> Event:
    """Parses a serialised AnalyzeEvent."""
    if len(raw) >= _SMALL:
        event = _large_layer(raw)
        if event is not None:
            return event
    return from_message(analysis_pb2.AnalyzeEvent.FromString(raw))


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number there, and the offset after it."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _fields(raw: bytes, at: int, end: int) -> Any:
    """Yields (number, wire type, offset of the tag, of the value, of the end,
    value) of each field, as long as all is well-formed."""
    while at < end:
        begin = at
        tag, at = raw[at], at + 1
        if tag >= 0x80:
            tag, at = _varint(raw, begin)
        wire_type, value, content = tag & 7, 0, at
        if wire_type == 0:
            value, at = raw[at], at + 1
            if value >= 0x80:
                value, at = _varint(raw, content)
        elif wire_type == 1:
            at += 8
        elif wire_type == 5:
            at += 4
        elif wire_type == 2:
            length, content = _varint(raw, at)
            at = content + length
        else:
            raise ValueError("a group")
        if at > end:
            raise ValueError("a field reaches past the end")
        yield tag >> 3, wire_type, begin, content, at, value


def _large_layer(raw: bytes) -> Optional[Event]:
    """A Layer event whose data are not copied; None for any other event, and
    for anything unusual, which protobuf then judges."""
    try:
        seq, layer = 0, None
        for number, kind, _, content, end, value in _fields(raw, 0, len(raw)):
            if number == _EVENT_SEQ and kind == 0:
                seq = value
            elif number == _EVENT_LAYER and kind == 2 and layer is None:
                layer = content, end
            else:
                return None
        if layer is None:
            return None
        data = None
        for number, kind, begin, content, end, _ in _fields(raw, *layer):
            if number == _LAYER_DATA:
                if data is not None or kind != 2:
                    return None
                data = begin, content, end
        if data is None:
            return None
        body = analysis_pb2.Layer.FromString(
            raw[layer[0]:data[0]] + raw[data[2]:layer[1]])
    except (IndexError, ValueError):
        return None
    if seq >= 1 << 63:  # negative
        seq -= 1 << 64
    return Event(seq, "layer", body, memoryview(raw)[data[1]:data[2]])
