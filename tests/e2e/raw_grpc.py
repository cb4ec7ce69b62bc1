"""gRPC calls byte by byte, for headers that no client library would send."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4

PATIENCE_S = 60


class Answer:
    """What came of a call: all header blocks and all message bytes."""

    def __init__(self):
        # HPACK with literals as they are: gRPC's server uses no Huffman code.
        self.headers = b""
        self.messages = b""


def frame(kind, flags, stream, payload):
    return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
            + struct.pack(">I", stream) + payload)


def _length(size):
    if size < 127:
        return bytes([size])
    out, size = [127], size - 127
    while size >= 128:
        out.append(size % 128 + 128)
        size //= 128
    return bytes([*out, size])


def string(value):
    """HPACK's, without Huffman's code."""
    return _length(len(value)) + value


def _literal(name, value):
    return b"\0" + string(name) + string(value)


def call_headers(path, headers=()):
    """The header block of a call."""
    return b"".join(_literal(name, value) for name, value in [
        (b":method", b"POST"), (b":scheme", b"http"),
        (b":path", path.encode()), (b":authority", b"localhost"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        *headers])


def _read_exactly(connection, size):
    out = b""
    while len(out) < size:
        part = connection.recv(size - len(out))
        if not part:
            raise ConnectionError("closed")
        out += part
    return out


def read_frame(connection):
    """Its kind, flags and payload."""
    head = _read_exactly(connection, 9)
    size = struct.unpack(">I", b"\0" + head[:3])[0]
    return head[3], head[4], _read_exactly(connection, size)


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), PATIENCE_S)


def call(connection, path, headers=(), message=b""):
    """One call on a fresh connection; `headers` are pairs of bytes."""
    block = call_headers(path, headers)
    connection.sendall(
        PREFACE + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM, 1,
                 b"\0" + struct.pack(">I", len(message)) + message))
    answer = Answer()
    while True:
        kind, flags, payload = read_frame(connection)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            connection.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise ConnectionError("sent away")
        elif kind == HEADERS:
            answer.headers += payload
        elif kind == DATA:
            answer.messages += payload
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            return answer
