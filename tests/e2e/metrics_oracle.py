"""Clients that count what they do, for tests of the metrics."""

import copy

import grpc
from google.protobuf import text_format

from processes import PATIENCE_S
from stubs import admin, admin_grpc, analysis, analysis_grpc, spec


def ids(count):
    return spec.Input(token_ids=spec.TokenIds(
        ids=[1 + i % 90 for i in range(count)]))


def analyze(tokens, more="", model="tiny"):
    request = text_format.Parse(more, analysis.AnalyzeRequest())
    request.model = model
    request.input.CopyFrom(ids(tokens))
    return request


def generate(tokens, new, model="tiny"):
    return analysis.GenerateRequest(
        model=model, input=ids(tokens), generate=text_format.Parse(
            f"max_new_tokens: {new} ignore_eos: true", spec.GenerateSpec()))


class Oracle:
    """A user's client, which counts what it does."""

    def __init__(self, server, alias, token=None):
        self.alias = alias
        self._metadata = [("authorization",
                           f"Bearer {token or 'token-' + alias}")]
        # Channels with one address would share a connection.
        self.channel = grpc.insecure_channel(
            server.address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = analysis_grpc.AnalysisStub(self.channel)
        self.admin = admin_grpc.ModelAdminStub(self.channel)
        self.calls = {}  # (method, code) -> number
        self.bytes = 0

    def another(self, alias, token):
        """Returns another user's client on the same connection."""
        out = copy.copy(self)
        out.alias = alias
        out._metadata = [("authorization", f"Bearer {token}")]
        out.calls, out.bytes = {}, 0
        return out

    def _ended(self, method, code):
        key = (method, code.name)
        self.calls[key] = self.calls.get(key, 0) + 1

    def call(self, method, request, code=grpc.StatusCode.OK, charged=True,
             stub=None):
        """Makes a call and returns its messages. `charged`: its bytes count
        as results."""
        answer, status = [], grpc.StatusCode.OK
        rpc = getattr(stub or self.stub, method)
        try:
            result = rpc(request, metadata=self._metadata, timeout=PATIENCE_S)
            if hasattr(result, "DESCRIPTOR"):
                answer.append(result)
            else:
                for message in result:
                    answer.append(message)
        except grpc.RpcError as error:
            status = error.code()
        self._ended(method, status)
        if status != code:
            raise AssertionError(f"{self.alias} {method}: {status}, not {code}")
        if charged:
            self.bytes += sum(message.ByteSize() for message in answer)
        return answer

    def start(self, method, request):
        """Starts a stream, and returns it once Analyze was accepted."""
        stream = getattr(self.stub, method)(request, metadata=self._metadata,
                                            timeout=PATIENCE_S)
        if method == "Analyze":
            self.bytes += next(stream).ByteSize()
        return stream

    def finish(self, method, stream):
        """Reads a started stream to its end."""
        try:
            for message in stream:
                self.bytes += message.ByteSize()
        except grpc.RpcError:
            pass
        self._ended(method, stream.code())
        return stream.code()


def closed_sets(models, users):
    """The values that each label of /metrics may have."""
    methods = {method.name for service in (
        analysis.DESCRIPTOR.services_by_name["Analysis"],
        admin.DESCRIPTOR.services_by_name["ModelAdmin"])
               for method in service.methods}
    return {
        "method": methods,
        "code": {code.name for code in grpc.StatusCode},
        "reason": {"queue_full", "stream_buffers", "memory", "response_size",
                   "draining", "model_state", "kept_results", "user_budget",
                   "client", "deadline", "stalled", "shutdown"},
        "phase": {"queue", "prefill", "decode", "capture", "stream"},
        "model": models | {"other"},
        "user": users | {"other"},
        "memory": {"host", "device"},
        "backend": {"cpu"},
        "version": {"0.1.0"},
    }
