"""Turns a line of qkscoped's log into OpenTelemetry spans.

Attributes follow OpenTelemetry's conventions for RPC and for generative AI. They
never hold a prompt, a token or an error's text.
"""

import datetime
import hashlib
import math
import re

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (SpanContext, SpanKind, Status, StatusCode,
                                 TraceFlags)

METHODS = {
    **dict.fromkeys(
        ("Analyze", "AnalyzeMany", "Generate", "Score", "Estimate", "Tokenize",
         "Detokenize", "GetServerInfo", "ListModels", "GetModel", "GetUsage",
         "ListRequests", "Cancel", "GetResult"), "qkscope.v1.Analysis"),
    **dict.fromkeys(("LoadModel", "UnloadModel", "ReloadConfig"),
                    "qkscope.v1.ModelAdmin"),
}
CODES = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
         "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
         "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
         "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
         "UNAUTHENTICATED"}
# The codes that the conventions for gRPC count as errors of a server.
ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL",
          "UNAVAILABLE", "DATA_LOSS"}
# The events of lines of requests: a call, and what a detached or resumable
# request did, which may end later than its call.
CALL_EVENT = "rpc"
KEPT_EVENT = "kept_run_ended"
KEPT_SPAN = "kept run"

SCOPE = InstrumentationScope("qkscope.log_to_spans")


class Malformed(Exception):
    """A line of a request that does not say what such lines say."""


def _number(line, key, default=None):
    value = line.get(key, default)
    if (not isinstance(value, (int, float)) or isinstance(value, bool)
            or not math.isfinite(value) or value < 0):
        raise Malformed(key)
    return value


def _hex(line, key, digits):
    value = line.get(key)
    if (not isinstance(value, str)
            or not re.fullmatch(f"[0-9a-f]{{{digits}}}", value)
            or int(value, 16) == 0):
        raise Malformed(key)
    return int(value, 16)


def _derived(*parts, size):
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return int.from_bytes(digest[:size], "big") or 1


def _end_of(line):
    """Returns the line's time in nanoseconds."""
    try:
        moment = datetime.datetime.strptime(line["ts"], "%Y-%m-%dT%H:%M:%S.%f%z")
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("ts") from error
    epoch = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
    return (moment - epoch) // datetime.timedelta(microseconds=1) * 1000


def _nanoseconds(milliseconds):
    return round(milliseconds * 1e6)


class _Ids:
    """The ids of a request's spans."""

    def __init__(self, line):
        # With replicas, "-" and the replica's name follow.
        self.request = str(line.get("id", "")).partition("-")[0]
        self.span = _hex({"id": self.request}, "id", 16)
        self.parent = None
        if "trace_id" in line:
            self.trace = _hex(line, "trace_id", 32)
            self.parent = _hex(line, "parent_id", 16)
        else:
            self.trace = _derived(self.request, "trace", size=16)

    def context(self, span_id, remote=False):
        return SpanContext(self.trace, span_id, is_remote=remote,
                           trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def child(self, *path):
        return self.context(_derived(self.request, *path, size=8))


def _attributes(line, method, code):
    service = METHODS.get(method)
    out = {"rpc.system.name": "grpc",
           "rpc.method": f"{service}/{method}" if service else "_OTHER",
           "rpc.response.status_code": code}
    if code in ERRORS:
        out["error.type"] = code
    if line.get("alias"):
        out["user.name"] = str(line["alias"])
    if line.get("model"):
        out["gen_ai.provider.name"] = "qkscope"
        out["gen_ai.request.model"] = str(line["model"])
        out["gen_ai.usage.input_tokens"] = _number(line, "prompt_tokens")
        out["gen_ai.usage.output_tokens"] = _number(line, "generated_tokens")
        out["qkscope.arms"] = _number(line, "arms")
        if method == "Generate":
            out["gen_ai.operation.name"] = "text_completion"
    return out


def _children(line, ids, path, parent, start, end, resource):
    """Returns the spans of the phases. A phase's duration is what the log says.
    Of device time, which is a share of passes, only the sum is known: prefill,
    decode and comparison are laid one after another from the end of the queue
    on, and capture, which is a part of them, from the same moment."""
    def length(phase):
        return _nanoseconds(_number(line, f"{phase}_ms", 0))

    out = []

    def add(phase, begin, finish):
        if finish > begin:
            out.append(ReadableSpan(
                phase, ids.child(*path, phase), parent, resource,
                {"qkscope.phase": phase}, kind=SpanKind.INTERNAL,
                start_time=begin, end_time=finish, instrumentation_scope=SCOPE))

    device = min(start + length("queue"), end)
    add("queue", start, device)
    begin = device
    for phase in ("prefill", "decode", "compare"):
        finish = min(begin + length(phase), end)
        add(phase, begin, finish)
        begin = finish
    add("capture", device, min(device + length("capture"), end))
    add("stream", max(end - length("stream"), start), end)
    return out


def spans_of(line, resource):
    """Returns the spans of a line of a request, the request's first; none if the
    client's trace is not sampled. Raises Malformed."""
    ids = _Ids(line)
    if line.get("sampled") is False:
        return []
    code = line.get("code")
    if code not in CODES:
        raise Malformed("code")
    end = _end_of(line)
    start = end - _nanoseconds(_number(line, "total_ms"))
    if line["event"] == KEPT_EVENT:
        path = (KEPT_SPAN,)
        name, kind = KEPT_SPAN, SpanKind.INTERNAL
        context, parent = ids.child(*path), ids.context(ids.span)
        attributes = {"rpc.response.status_code": code}
        if code in ERRORS:
            attributes["error.type"] = code
    else:
        path = ()
        attributes = _attributes(line, line.get("method"), code)
        name, kind = attributes["rpc.method"], SpanKind.SERVER
        context = ids.context(ids.span)
        parent = (None if ids.parent is None
                  else ids.context(ids.parent, remote=True))
    status = Status(StatusCode.ERROR if code in ERRORS else StatusCode.UNSET)
    whole = ReadableSpan(name, context, parent, resource, attributes, kind=kind,
                         status=status, start_time=start, end_time=end,
                         instrumentation_scope=SCOPE)
    return [whole, *_children(line, ids, path, context, start, end, resource)]
