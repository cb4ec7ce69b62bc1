"""Floods that a proxy must keep from the server. `connect` makes a connection
to the proxy: TLS, HTTP/2."""

import ssl
import struct
import time

import raw_grpc
from raw_grpc import CANCEL, PATIENCE_S, RST_STREAM

METHOD = "/qkscope.v1.Analysis/GetServerInfo"
BEGINNING = raw_grpc.PREFACE + raw_grpc.frame(raw_grpc.SETTINGS, 0, 0, b"")
# A header of 4,000 bytes goes into the table, and thousands of references of
# one byte follow: a frame of 16 KiB expands to 48 MB.
BOMB = (b"\x40" + raw_grpc.string(b"x-bomb") + raw_grpc.string(b"b" * 4000)
        + b"\xbe" * 12_000)


def _is_refused(connection):
    """Whether the call has been refused before any server had it."""
    try:
        while True:
            kind, _, _, payload = raw_grpc.read_frame(connection)
            if kind in (raw_grpc.GOAWAY, RST_STREAM):
                return True
            if kind == raw_grpc.HEADERS:
                return b"application/grpc" not in payload
    except ConnectionError:
        return True


def send_bombs(connect, count):
    """Sends calls whose headers unpack to 48 MB, each on a connection of its
    own; returns how many were refused."""
    refused = 0
    for _ in range(count):
        with connect() as connection:
            connection.sendall(BEGINNING + raw_grpc.frame(
                raw_grpc.HEADERS,
                raw_grpc.END_HEADERS | raw_grpc.END_STREAM, 1,
                raw_grpc.call_headers(METHOD) + BOMB))
            refused += _is_refused(connection)
    return refused


def _resets(stream, count):
    burst = b""
    for number in range(stream, stream + 2 * count, 2):
        burst += raw_grpc.frame(raw_grpc.HEADERS, raw_grpc.END_HEADERS, number,
                                raw_grpc.call_headers(METHOD))
        burst += raw_grpc.frame(RST_STREAM, 0, number,
                                struct.pack(">I", CANCEL))
    return burst


def send_resets(connect, count):
    """Sends calls that are reset at once, on a new connection whenever the
    proxy has had enough."""
    burst, sent, connection, stream = 200, 0, None, 1
    until = time.monotonic() + PATIENCE_S
    while sent < count:
        if time.monotonic() > until:
            raise AssertionError("the flood hangs")
        try:
            if connection is None:
                connection, stream = connect(), 1
                connection.settimeout(PATIENCE_S)
                connection.sendall(BEGINNING)
            connection.sendall(_resets(stream, burst))
            sent += burst
            stream += 2 * burst
        except (ConnectionError, ssl.SSLError):
            if connection is not None:
                connection.close()
            connection = None
    if connection is not None:
        connection.close()
