"""gRPC calls byte by byte: for input that no client library would send, and for
many clients at little cost."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
(DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY,
 WINDOW_UPDATE) = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL, ENHANCE_YOUR_CALM = 8, 11
# The status as trailers encode it: HPACK with plain literals, since gRPC's
# server uses no Huffman code. Only a connection's first call has it in full;
# later ones refer to it.
OK = b"\x0bgrpc-status\x010"
RESOURCE_EXHAUSTED = b"\x0bgrpc-status\x018"
UNAVAILABLE = b"\x0bgrpc-status\x0214"

# This is longer than anything here takes.
PATIENCE_S = 1200


class SentAway(ConnectionError):
    """The server's GOAWAY."""

    def __init__(self, code, text):
        super().__init__(f"sent away: {code} {text}")
        self.code = code


class Answer:
    """All header blocks and all message bytes of a call's answer."""

    def __init__(self):
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
    """Encodes an HPACK string without Huffman code."""
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
    """Returns the frame's kind, flags, stream and payload."""
    head = _read_exactly(connection, 9)
    size = struct.unpack(">I", b"\0" + head[:3])[0]
    stream = struct.unpack(">I", head[5:])[0]
    return head[3], head[4], stream, _read_exactly(connection, size)


def connect(address, receive_buffer=None):
    """`receive_buffer`: the bytes that the kernel accepts while nobody reads,
    as far as the kernel obeys."""
    host, port = address.rsplit(":", 1)
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                              receive_buffer)
    connection.settimeout(PATIENCE_S)
    connection.connect((host, int(port)))
    return connection


class Connection:
    """HTTP/2 over `connection`, a fresh one. It accepts 64 KiB of answers, and
    more only after take()."""

    def __init__(self, connection):
        self.socket = connection
        self._next = 1
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    def start(self, path, message=b"", headers=()):
        """Starts a call; returns its stream. `headers` are pairs of bytes."""
        stream, self._next = self._next, self._next + 2
        self.socket.sendall(
            frame(HEADERS, END_HEADERS, stream, call_headers(path, headers))
            + frame(DATA, END_STREAM, stream,
                    b"\0" + struct.pack(">I", len(message)) + message))
        return stream

    def take(self, size, *streams):
        """Lets the connection and each stream take this many more bytes."""
        self.socket.sendall(b"".join(
            frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))
            for stream in (0, *streams)))

    def cancel(self, stream):
        self.socket.sendall(
            frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    def ping(self):
        self.socket.sendall(frame(PING, 0, 0, b"12345678"))

    def read(self):
        """Works like read_frame, and answers SETTINGS and PING."""
        kind, flags, stream, payload = read_frame(self.socket)
        if kind in (SETTINGS, PING) and not flags & ACK:
            try:
                self.socket.sendall(frame(
                    kind, ACK, 0, payload if kind == PING else b""))
            except OSError:
                pass  # The server has closed; its last frames follow.
        elif kind == GOAWAY:
            raise SentAway(struct.unpack(">I", payload[4:8])[0], payload[8:])
        return kind, flags, stream, payload

    def await_data(self):
        """Waits until the first bytes of an answer are there."""
        while self.read()[0] != DATA:
            pass

    def finish(self, stream):
        """Reads to the end of the stream, within the window."""
        answer = Answer()
        while True:
            kind, flags, of, payload = self.read()
            if of != stream:
                continue
            if kind == HEADERS:
                answer.headers += payload
            elif kind == DATA:
                answer.messages += payload
            if kind == RST_STREAM or (kind in (HEADERS, DATA)
                                      and flags & END_STREAM):
                return answer

    def read_all(self):
        """Returns header blocks and message bytes until the server is gone."""
        out = b""
        while True:
            try:
                kind, _, _, payload = self.read()
            except SentAway:
                continue  # The server closes gracefully: streams may continue.
            except ConnectionError:
                return out
            if kind in (DATA, HEADERS):
                out += payload

    def close(self):
        self.socket.close()


def call(connection, path, headers=(), message=b""):
    """Makes one call on a fresh connection."""
    http2 = Connection(connection)
    return http2.finish(http2.start(path, message, headers))
