"""The exceptions of this package: one tree, under QkscopeError.

Each says in one sentence what is wrong. `field` names the request's field, if
the server named one, and `remedy` what to do, if that is known.
"""

from __future__ import annotations

import re
from typing import Any, Optional

import grpc

from qkscope._version import __version__
from qkscope.v1 import error_pb2

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_REQUEST_INFO = "type.googleapis.com/google.rpc.RequestInfo"
_DETAILS = "grpc-status-details-bin"
# "arms[0].disruptions[0].top_k.k: 999 exceeds head_dim 8"
_FIELD = re.compile(r"([a-z_][a-z0-9_]*(?:\[\d+\]|\.[a-z_][a-z0-9_]*)*): ")
_ONLY_SAYS_GONE = ("UNKNOWN", "INTERNAL", "UNAVAILABLE")


class QkscopeError(Exception):
    """A call, a stream or a file that failed.

    code: gRPC's name of the status, such as "INVALID_ARGUMENT".
    message: what is wrong, as the server or this package says it.
    field: the request's field, such as "arms[0].disruptions[0].top_k.k", or "".
    remedy: what to do about it, or "".
    request_id: the call's id in the server's log, or "".
    retry_after: seconds after which a retry may help, or None.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, *, code: Optional[str] = None,
                 field: str = "", remedy: str = "", request_id: str = "",
                 retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.message = message
        self.field = field
        self.remedy = remedy
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = self.message
        if self.remedy:
            text += f"; {self.remedy}"
        if self.request_id:
            text += f" [request {self.request_id}]"
        return text


class InvalidRequest(QkscopeError):
    """A field of the request is wrong: `field` names it."""
    code = "INVALID_ARGUMENT"


class NotFound(QkscopeError):
    """There is no such model, request or user."""
    code = "NOT_FOUND"


class PermissionDenied(QkscopeError):
    """The caller is known, and may not do this."""
    code = "PERMISSION_DENIED"


class Unauthenticated(QkscopeError):
    """The server knows no such token or certificate."""
    code = "UNAUTHENTICATED"


class OverLimit(QkscopeError):
    """The request exceeds a limit, or the queue is full."""
    code = "RESOURCE_EXHAUSTED"


class Unavailable(QkscopeError):
    """The server cannot be reached, or does not serve now."""
    code = "UNAVAILABLE"


class DeadlineExceeded(QkscopeError):
    """The call did not end within its time."""
    code = "DEADLINE_EXCEEDED"


class Cancelled(QkscopeError):
    """The call was cancelled."""
    code = "CANCELLED"


class IncompleteStream(QkscopeError):
    """A stream broke off, or broke a promise of the protocol. Nothing of it
    may be used."""
    code = "DATA_LOSS"


class ServerError(QkscopeError):
    """A failure inside the server, or a status that has no class of its own."""
    code = "INTERNAL"


class VersionMismatch(QkscopeError):
    """The server does not know something that this client asked for. No
    version is locked out: only what is really missing fails."""
    code = "UNIMPLEMENTED"


class BadFile(QkscopeError, ValueError):
    """A file that cannot be read or written, or that is not what it should
    be."""
    code = "DATA_LOSS"


class ShapesDiffer(QkscopeError, ValueError):
    """Layers have different shapes, so they do not fit into one array."""
    code = "FAILED_PRECONDITION"


class MissingExtra(QkscopeError, ImportError):
    """A package that an optional part of this one needs is not installed."""
    code = "FAILED_PRECONDITION"


_CLASSES: dict[str, type[QkscopeError]] = {
    "INVALID_ARGUMENT": InvalidRequest, "OUT_OF_RANGE": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest, "NOT_FOUND": NotFound,
    "PERMISSION_DENIED": PermissionDenied, "UNAUTHENTICATED": Unauthenticated,
    "RESOURCE_EXHAUSTED": OverLimit, "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded, "CANCELLED": Cancelled,
    "DATA_LOSS": IncompleteStream, "UNIMPLEMENTED": VersionMismatch,
}


def make_error(code: str, message: str, *, server: str = "",
               request_id: str = "",
               retry_after: Optional[float] = None) -> QkscopeError:
    """The exception for a status. `server`: where the call went."""
    kind = _CLASSES.get(code, ServerError)
    match = _FIELD.match(message)
    remedy = ""
    if kind is InvalidRequest and "(strict is set)" in message:
        kind = VersionMismatch
        message = message.replace(" (strict is set)", "")
        remedy = ("the server is older than this client, "
                  f"qkscope {__version__}: leave that out, or update it")
    elif kind is VersionMismatch:
        message = message or "unknown method"
        remedy = (f"{server or 'the server'} does not have this call of "
                  f"qkscope {__version__}: is it another service, or older?")
    elif kind is Unauthenticated:
        remedy = "give token= or token_file=, or set QKSCOPE_TOKEN"
    elif kind is Unavailable and not request_id:
        remedy = (f"is a server running at {server}? Name another one with "
                  "server= or QKSCOPE_SERVER; TLS needs ca=" if server else "")
    elif kind is NotFound and message.startswith("model "):
        remedy = "models() lists what is there"
        message = message.replace("; see ListModels", "")
    return kind(message or code, code=code, field=match[1] if match else "",
                remedy=remedy, request_id=request_id, retry_after=retry_after)


def _details(blob: bytes) -> tuple[str, Optional[float]]:
    """The request's id and the seconds to wait, from the status' details."""
    status = error_pb2.RpcStatus()
    request_id, wait = "", None
    try:
        status.ParseFromString(blob)
        for detail in status.details:
            if detail.type_url == _RETRY_INFO:
                delay = error_pb2.RetryInfo.FromString(detail.value).retry_delay
                wait = delay.seconds + delay.nanos / 1e9
            elif detail.type_url == _REQUEST_INFO:
                request_id = error_pb2.RequestInfo.FromString(
                    detail.value).request_id
    except Exception:  # pylint: disable=broad-except
        pass  # Details that cannot be read say nothing; the status still does.
    return request_id, wait


def from_rpc_error(error: Any, server: str) -> QkscopeError:
    """The exception for a grpc.RpcError of either call layer."""
    code = error.code().name if error.code() is not None else "UNKNOWN"
    blob = b""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            blob = value
    request_id, wait = _details(blob)
    return make_error(code, error.details() or "", server=server,
                      request_id=request_id, retry_after=wait)


def from_code(code: int, message: str) -> QkscopeError:
    """The exception for a google.rpc.Code inside a message."""
    for status in grpc.StatusCode:
        if status.value[0] == code:
            return make_error(status.name, message)
    return ServerError(message, code=str(code))


def incomplete(message: str, request_id: str = "") -> IncompleteStream:
    return IncompleteStream(f"incomplete stream: {message}",
                            request_id=request_id)


def broken_stream(error: Optional[QkscopeError], events: int) -> QkscopeError:
    """The error of a stream that began and did not finish. A status with a
    reason stays as it is; one that only says that the connection is gone
    becomes an incomplete stream."""
    if error is not None and error.code not in _ONLY_SAYS_GONE:
        return error
    why = "status OK" if error is None else error.message
    return incomplete(f"it ended after {events} events without Finished ({why})",
                      error.request_id if error is not None else "")


def retry_delay_base(error: QkscopeError) -> Optional[float]:
    """The least seconds to wait before a retry, or None if none would help."""
    if error.code == "UNAVAILABLE" or error.retry_after is not None:
        return error.retry_after or 0.0
    return None
