"""The calls of the API: their names and messages, where they go, and what both
call layers (connection.py, aio_connection.py) need for each.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import time
from typing import Any, Callable, Optional, Union

import grpc

from qkscope import wire
from qkscope._version import __version__
from qkscope.errors import BadFile, InvalidRequest
from qkscope.server_list import replica_of
from qkscope.v1 import analysis_pb2 as v1

DEFAULT_SERVER = "127.0.0.1:7461"
# A Logits event with a whole vocabulary may exceed gRPC's default of 4 MiB.
_MAX_RECEIVE_BYTES = 256 << 20
_LONGEST_TIMEOUT_S = 3650 * 24 * 3600.0
_ROUND_ROBIN = ('{"loadBalancingConfig":[{"round_robin":{}}],'
                '"healthCheckConfig":{"serviceName":""}}')

SERVING = 1  # of grpc.health.v1

_ANALYSIS = "/qkscope.v1.Analysis/"
# Method -> the kind of call, its path, and what reads its answers.
METHODS: dict[str, tuple[str, str, Callable[[bytes], Any]]] = {
    "Analyze": ("unary_stream", _ANALYSIS + "Analyze", wire.decode_event),
    "GetResult": ("unary_stream", _ANALYSIS + "GetResult", wire.decode_event),
    "Generate": ("unary_stream", _ANALYSIS + "Generate",
                 v1.GenerateEvent.FromString),
    "AnalyzeMany": ("stream_stream", _ANALYSIS + "AnalyzeMany",
                    v1.AnalyzeManyEvent.FromString),
    # The messages of grpc.health.v1 have one field each. These have the same
    # bytes, and need no further package.
    "Check": ("unary_unary", "/grpc.health.v1.Health/Check",
              v1.ListModelsRequest.FromString),
} | {name: ("unary_unary", _ANALYSIS + name, answer.FromString)
     for name, answer in dict[str, Any]({
         "GetServerInfo": v1.ServerInfo, "ListModels": v1.ListModelsResponse,
         "GetModel": v1.ModelInfo, "Score": v1.ScoreResponse,
         "Estimate": v1.EstimateResponse, "Tokenize": v1.TokenizeResponse,
         "Detokenize": v1.DetokenizeResponse, "GetUsage": v1.GetUsageResponse,
         "ListRequests": v1.ListRequestsResponse, "Cancel": v1.CancelResponse,
     }).items()}


@dataclasses.dataclass
class Call:
    """One call to make. request_id: of the request that it is about, or ""."""
    method: str
    request: Any
    request_id: str = ""
    # Seconds to wait before.
    delay: float = 0.0


def serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


class Deadline:
    """The time at which a call must have ended, retries included."""

    def __init__(self, timeout: Optional[float]) -> None:
        if timeout is not None and (math.isnan(timeout) or timeout < 0):
            raise InvalidRequest(f"timeout: must be seconds >= 0, got {timeout}",
                                 field="timeout")
        if timeout is None or timeout > _LONGEST_TIMEOUT_S:
            self._end = None
        else:
            self._end = time.monotonic() + timeout

    def left(self) -> Optional[float]:
        """Seconds, at least 0; None: without an end."""
        if self._end is None:
            return None
        return max(0.0, self._end - time.monotonic())

    def allows(self, delay: float) -> bool:
        left = self.left()
        return left is None or delay < left


PemLike = Union[bytes, str, "os.PathLike[str]", None]


@dataclasses.dataclass(frozen=True)
class Options:
    """How servers are reached. Certificates are PEM; tls is off if all four
    are unset."""
    server: str
    token: str = ""
    tls: bool = False
    ca: Optional[bytes] = None
    certificate: Optional[bytes] = None
    key: Optional[bytes] = None
    server_name: Optional[str] = None

    @property
    def list_path(self) -> Optional[str]:
        """The path of a list of servers, if `server` names one."""
        prefix = "file://"
        if not self.server.startswith(prefix):
            return None
        return self.server[len(prefix):]

    @property
    def several(self) -> bool:
        """Whether `server` may be several addresses."""
        return self.server.startswith(("ipv4:", "ipv6:", "dns:"))

    def credentials(self) -> Optional[Any]:
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key,
                                            self.certificate)

    def channel_arguments(self, round_robin: bool) -> list[tuple[str, Any]]:
        arguments: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5000),
            ("grpc.primary_user_agent", f"qkscope-python/{__version__}"),
        ]
        if round_robin:
            arguments.append(("grpc.service_config", _ROUND_ROBIN))
        if self.server_name:
            arguments.append(("grpc.ssl_target_name_override",
                              self.server_name))
        return arguments

    def metadata(self, request_id: str) -> list[tuple[str, str]]:
        metadata = []
        if self.token:
            metadata.append(("authorization", f"Bearer {self.token}"))
        # A balancer cannot read messages.
        replica = replica_of(request_id)
        if replica:
            metadata.append(("x-qkscope-replica", replica))
        return metadata


def _pem(name: str, value: PemLike) -> Optional[bytes]:
    if value is None or isinstance(value, bytes):
        return value
    try:
        return pathlib.Path(value).read_bytes()
    except OSError as error:
        raise BadFile(f"{name}: cannot read {value}: {error.strerror}"
                      ) from None


def _token(token: Optional[str], token_file: PemLike) -> str:
    name = "token"
    if token is None and token_file is not None:
        name = f"token_file {token_file!s}"
        token = (_pem("token_file", token_file) or b"").decode(
            errors="replace").strip()
        if not token:
            raise BadFile(f"{name}: contains no token")
    elif token is None:
        name = "QKSCOPE_TOKEN"
        token = os.environ.get(name, "")
    if any(not "!" <= c <= "~" for c in token):
        raise InvalidRequest(
            f"{name}: must be printable ASCII without spaces")
    return token


def make_options(server: Optional[str] = None, *, token: Optional[str] = None,
                 token_file: PemLike = None, tls: bool = False,
                 ca: PemLike = None, certificate: PemLike = None,
                 key: PemLike = None,
                 server_name: Optional[str] = None) -> Options:
    """Options from the arguments of connect and the environment."""
    if (certificate is None) != (key is None):
        raise InvalidRequest("certificate and key: give both or neither")
    given = [ca, certificate, server_name]
    return Options(
        server or os.environ.get("QKSCOPE_SERVER") or DEFAULT_SERVER,
        _token(token, token_file), tls or any(x is not None for x in given),
        _pem("ca", ca), _pem("certificate", certificate), _pem("key", key),
        server_name)
