"""An Analysis service in this process that answers as a test tells it."""

import concurrent.futures
import dataclasses
import threading

import grpc
import support  # pylint: disable=unused-import
from google.protobuf import any_pb2, duration_pb2

from qkscope.v1 import analysis_pb2 as v1
from qkscope.v1 import analysis_pb2_grpc, error_pb2

PATIENCE_S = 600


@dataclasses.dataclass
class Answer:
    """What one call does: it sends so many events (None: all), and ends with
    this status."""
    events: int = None
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    retry_after: float = None
    request_id: str = ""


def end(context, answer):
    if answer.code == grpc.StatusCode.OK:
        return
    status = error_pb2.RpcStatus(code=answer.code.value[0],
                                 message=answer.message)

    def add(name, message):
        status.details.append(any_pb2.Any(
            type_url=f"type.googleapis.com/google.rpc.{name}",
            value=message.SerializeToString()))
    if answer.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(answer.retry_after * 1e9))
        add("RetryInfo", error_pb2.RetryInfo(retry_delay=delay))
    if answer.request_id:
        add("RequestInfo", error_pb2.RequestInfo(request_id=answer.request_id))
    context.set_trailing_metadata(
        [("grpc-status-details-bin", status.SerializeToString())])
    context.abort(answer.code, answer.message)


class FakeService(analysis_pb2_grpc.AnalysisServicer):
    """events: what Analyze and GetResult send. answers: what the next calls do
    instead of sending all. calls: (method, request, metadata) of each call.
    hang: Analyze waits for its end after the events."""

    def __init__(self, events=()):
        self.events = list(events)
        self.answers = []
        self.many_events = []
        self.unary = {}  # method -> list of answers
        self.calls = []
        self.hang = False
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(16))
        analysis_pb2_grpc.add_AnalysisServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._server.stop(0).wait()

    def methods(self):
        with self._lock:
            return [method for method, *_ in self.calls]

    def _note(self, method, request, context):
        with self._lock:
            self.calls.append((method, request,
                               dict(context.invocation_metadata())))

    def _next(self):
        with self._lock:
            return self.answers.pop(0) if self.answers else Answer()

    def _play(self, context, events):
        answer = self._next()
        context.add_callback(self.cancelled.set)
        yield from (events if answer.events is None
                    else events[:answer.events])
        end(context, answer)
        if self.hang:
            self.cancelled.wait(PATIENCE_S)

    def Analyze(self, request, context):
        self._note("Analyze", request, context)
        events = self.events[:1] if request.detach else self.events
        yield from self._play(context, events)

    def GetResult(self, request, context):
        self._note("GetResult", request, context)
        yield from self._play(context, [
            event for event in self.events
            if event.HasField("accepted") or event.seq >= request.from_seq])

    def AnalyzeMany(self, request_iterator, context):
        requests = list(request_iterator)
        self._note("AnalyzeMany", requests, context)
        yield from self._play(context, self.many_events)

    def Generate(self, request, context):
        self._note("Generate", request, context)
        yield from self._play(context, self.events)

    def _unary(self, method, request, context):
        self._note(method, request, context)
        end(context, self._next())
        return self.unary[method].pop(0)


for _name in ("GetServerInfo", "ListModels", "GetModel", "Score", "Estimate",
              "Tokenize", "GetUsage", "ListRequests", "Cancel"):
    setattr(FakeService, _name,
            lambda self, request, context, name=_name: self._unary(
                name, request, context))


def with_ids(prompts):
    """AnalyzeMany's events for {id: events or an error}, and the summary."""
    many, failed = [], 0
    for id_, events in prompts.items():
        if isinstance(events, v1.ManyPromptError):
            events.id = id_
            many.append(v1.AnalyzeManyEvent(error=events))
            failed += 1
            continue
        many += [v1.AnalyzeManyEvent(prompt=v1.ManyPromptEvent(
            id=id_, event=event)) for event in events]
    return [*many, v1.AnalyzeManyEvent(finished=v1.ManyFinished(
        prompts=len(prompts), failed=failed))]
