"""Lists of servers in a file, one HOST:PORT per line, and after it, if the
server has a name among replicas, that name. A folder of such files is one list.
"""

from __future__ import annotations

import os
import pathlib
import re
import threading
import time
from typing import Callable, Generic, NamedTuple, Optional, TypeVar

from qkscope.errors import InvalidRequest, QkscopeError, Unavailable

_MAX_LIST_BYTES = 1 << 20
_LIST_AGE_S = 1.0  # A list is read again, at the earliest, after this time.
_ADDRESS = re.compile(r"(?:\[[A-Za-z0-9._:%-]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_REPLICA = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REQUEST_ID = re.compile(r"[0-9a-f]{16}-(" + _REPLICA.pattern + ")")

Endpoint = TypeVar("Endpoint")


class ListedServer(NamedTuple):
    address: str
    replica: str  # empty: not told


def replica_of(request_id: str) -> str:
    """The name of the replica that a request's id is from, or ""."""
    match = _REQUEST_ID.fullmatch(request_id)
    return match[1] if match else ""


def parse_server_list(text: str, path: str) -> list[ListedServer]:
    """The servers of one file. InvalidRequest: "PATH:LINE: problem"."""
    servers: dict[ListedServer, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        address = _ADDRESS.fullmatch(words[0])
        if (len(words) > 2 or not address or not 1 <= int(address[1]) <= 65535
                or (len(words) == 2 and not _REPLICA.fullmatch(words[1]))):
            raise InvalidRequest(
                f"{path}:{number}: must be HOST:PORT and perhaps a replica's "
                f"name, got {line[:60]!r}")
        servers[ListedServer(words[0], words[1] if len(words) == 2 else "")] = (
            None)
    return list(servers)


def _read_file(path: str) -> list[ListedServer]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_LIST_BYTES + 1)
        if len(data) > _MAX_LIST_BYTES:
            raise InvalidRequest(f"{path}: is larger than {_MAX_LIST_BYTES} "
                                 "bytes")
        return parse_server_list(data.decode(), path)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path}: is not UTF-8 text") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    except OSError as error:
        raise Unavailable(f"{path}: cannot be read: {error.strerror}") from None


def read_server_list(path: str) -> list[ListedServer]:
    """Reads the file, or all files of the folder in the order of their names.
    Unavailable: it cannot be read now; InvalidRequest: it has a bad line."""
    if not os.path.isdir(path):
        return _read_file(path)
    try:
        files = sorted(str(file) for file in pathlib.Path(path).iterdir()
                       if not file.name.startswith("."))
    except OSError as error:
        raise Unavailable(f"{path}: cannot be read: {error.strerror}") from None
    servers: dict[ListedServer, None] = {}
    for name in files:
        try:
            servers.update(dict.fromkeys(_read_file(name)))
        except Unavailable:
            if os.path.exists(name):
                raise
            # Its writer has removed it.
    return list(servers)


class ServerList(Generic[Endpoint]):
    """The endpoints of a list that is read again when it may have changed.

    connect: makes the endpoint of an address. Thread-safe.
    """

    def __init__(self, path: str, connect: Callable[[str], Endpoint]) -> None:
        self.path = path
        self._connect = connect
        self._lock = threading.Lock()
        self._endpoints: dict[ListedServer, Endpoint] = {}
        self._read_at: Optional[float] = None
        self._turn = int.from_bytes(os.urandom(2), "little")

    def candidates(self, replica: str) -> list[Endpoint]:
        """Returns the endpoints that may answer, each call beginning with
        another one. `replica`: the one that has the result, or "".
        Unavailable: there is none."""
        with self._lock:
            self._refresh()
            servers = list(self._endpoints)
            if replica:
                named = [s for s in servers if s.replica == replica]
                servers = named or [s for s in servers if not s.replica]
            if not servers:
                raise Unavailable(f"{self.path}: lists no " + (
                    f"replica '{replica}'" if self._endpoints else "server"))
            first = self._turn % len(servers)
            self._turn += 1
            return [self._endpoints[server] for server
                    in servers[first:] + servers[:first]]

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._read_at is not None and now - self._read_at < _LIST_AGE_S:
            return
        try:
            servers = read_server_list(self.path)
        except QkscopeError:
            if self._read_at is None:
                raise
            self._read_at = now  # What was read before stays in use.
            return
        self._read_at = now
        old = self._endpoints
        self._endpoints = {server: old[server] if server in old
                           else self._connect(server.address)
                           for server in servers}
        # Calls may still run on what has left the list; it closes with them.

    def all(self) -> list[Endpoint]:
        with self._lock:
            return list(self._endpoints.values())
