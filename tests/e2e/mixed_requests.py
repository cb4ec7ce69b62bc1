"""The requests of mixed_soak_test.py, and what of each answer must be the same
whenever it is asked."""

import hashlib
import random

import grpc
from google.protobuf import text_format

from byte_tokenizer import byte_tokenizer
from stubs import analysis, analysis_grpc, error, spec

_BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
# One character of printable ASCII per token, and two tokens that merge some.
_PRINTABLE = [chr(code) for code in range(33, 127)] + ["\u0120"]
TOKENIZER = byte_tokenizer([*_PRINTABLE, "ab", "th"], ["a b", "t h"])

_ANALYZE = [
    "",
    "capture {form: NORM_PER_TOKEN}",
    "capture {form: RAW raw_sha256: true}",
    "capture {form: RAW raw_dtype: BF16 points: HOOK_Z layers: 1}",
    """capture {points: [HOOK_Q, HOOK_K, HOOK_V, HOOK_ROT_Q, HOOK_ROT_K, HOOK_Z]
       stage: BEFORE_AND_AFTER} arms {name: 'b' disruptions {bottom_k {k: 2}}}
    """,
    "capture {points: HOOK_PATTERN form: RAW positions: [0, 2]}",
    "capture {off: true} logits {top_n: 5 positions: [0, 1, 2]}",
    """arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 1}}}
       arms {name: 'random' disruptions {random_k {k: 2 seed: 7}}} compare {}
    """,
    """arms {name: 'clean'} arms {name: 'over' disruptions {
         threshold {lambda: 1.5} kv_cache: ATTENTION_ONLY}} compare {}
       generate {max_new_tokens: 5 ignore_eos: true}""",
    """arms {name: 'heads' disruptions {tensors: QKV_TENSOR_K
         explicit {entries {head: 1 dim: 3}} kv_grouping: QUERY_HEAD
         kv_cache: ATTENTION_ONLY replace: SCALE factor: 0.5}}
       statistics {top_n: 3}""",
    """generate {max_new_tokens: 6 ignore_eos: true
         sampling {temperature: 0.8 seed: 3}} capture {phase: BOTH}
       arms {name: 'a' disruptions {top_k {k: 2} axis: PER_TOKEN phase: BOTH}}
    """,
    "logits {top_n: 3} generate {max_new_tokens: 3} priority: BATCH",
]


def _ids(count, seed):
    draw = random.Random(seed)
    return spec.Input(token_ids=spec.TokenIds(
        ids=[draw.randrange(95) for _ in range(count)]))


def _text(count, seed):
    """Printable characters, in words of hex digits and blanks."""
    draw = random.Random(seed)
    return "".join(draw.choice("0123456789abcdef th") for _ in range(count))


def analyses(model, sizes=(4, 40, 200)):
    out = []
    for number, text in enumerate(_ANALYZE):
        for size in sizes:
            request = analysis.AnalyzeRequest(
                model=model, input=_ids(size, number * 1000 + size))
            out.append(text_format.Merge(text, request))
    out.append(analysis.AnalyzeRequest(
        model=model, input=spec.Input(text=_text(60, 1).encode())))
    return out


def _generate(model):
    return [text_format.Merge(text, analysis.GenerateRequest(
        model=model, input=_ids(size, size))) for size, text in [
            (3, "generate {max_new_tokens: 8}"),
            (30, "generate {max_new_tokens: 20 ignore_eos: true}"),
            (90, """generate {max_new_tokens: 9 ignore_eos: true
                    sampling {temperature: 1.2 top_p: 0.9 seed: 5}}
                    arm {name: 't' disruptions {top_k {k: 1} phase: BOTH}}""")]]


def _score(model):
    pairs = [analysis.ScorePair(context=_ids(3 + 9 * i, i),
                                continuation=_ids(1 + i, 50 + i))
             for i in range(6)]
    arm = text_format.Merge("name: 't' disruptions {top_k {k: 1}}", spec.Arm())
    return [analysis.ScoreRequest(model=model, pairs=pairs),
            analysis.ScoreRequest(model=model, pairs=pairs, arm=arm),
            analysis.ScoreRequest(model=model, pairs=pairs * 8,
                                  totals_only=True)]


def _many(model):
    prompts = [analysis.AnalyzeManyRequest(prompt=analysis.AnalyzeManyPrompt(
        id=f"p{i}", input=_ids(1 + 17 * i % 90, 70 + i))) for i in range(12)]
    # One prompt gets an error of its own.
    prompts[5].prompt.input.token_ids.ids.append(97)
    out = []
    for text in ["request {}", """request {
            arms {name: 'clean'} arms {name: 't' disruptions {top_k {k: 1}}}
            compare {}}""", "request {} aggregate: true"]:
        first = text_format.Merge(text, analysis.AnalyzeManySpec())
        first.request.model = model
        out.append([analysis.AnalyzeManyRequest(spec=first), *prompts])
    return out


def _tokens(model):
    tokenize = [analysis.TokenizeRequest(
        model=model, input=spec.Input(text=_text(count, count).encode()))
        for count in (1, 80, 3000)]
    detokenize = [analysis.DetokenizeRequest(
        model=model, token_ids=_ids(count, count).token_ids.ids)
        for count in (1, 400)]
    return ([("Tokenize", request) for request in tokenize]
            + [("Detokenize", request) for request in detokenize])


def _length(size):
    out = b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size])


def _refused(model):
    """Messages that are refused, some only after much has been read."""
    rules = b"\x0a\x01x" + b"\x12\x00" * 1_900_000  # an arm: its empty rules
    many_rules = (b"\x0a" + _length(len(model)) + model.encode()
                  + b"\x1a" + _length(len(rules)) + rules)
    bad = [text_format.Merge(text, analysis.AnalyzeRequest(
        model=model, input=_ids(9, 9))) for text in [
            "model: 'nobodys'", "capture {layers: 99}",
            "arms {name: ''}", "compare {}",
            "arms {name: 'a' disruptions {top_k {k: 999}}}"]]
    return [("raw Analyze", many_rules), ("raw Estimate", many_rules),
            ("raw Analyze", b"\xff\xff"), ("raw Score", b"\x08" * 100_000),
            ("raw GetResult", b"\x0a\x7f"),
            ("Generate", analysis.GenerateRequest(model=model)),
            ("GetResult", analysis.GetResultRequest(request_id="0" * 16)),
            ("Cancel", analysis.CancelRequest(request_id="f" * 16)),
            *(("Analyze", request) for request in bad)]


def _large(model):
    """Texts of 1 MiB, which take long to tokenise and are refused as prompts.
    """
    text = spec.Input(text=_text(1 << 20, 20).encode())
    return [("raw Tokenize", analysis.TokenizeRequest(
                 model=model, input=text).SerializeToString()),
            ("raw Estimate", analysis.AnalyzeRequest(
                 model=model, input=text).SerializeToString()),
            ("raw Detokenize", analysis.DetokenizeRequest(
                 model=model,
                 token_ids=[1] * (1 << 20)).SerializeToString())]


def _model(model):
    return [("ListModels", analysis.ListModelsRequest()),
            ("GetModel", analysis.GetModelRequest(model=model)),
            ("GetServerInfo", analysis.GetServerInfoRequest())]


def asked(model):
    """Returns (method, request) by kind; the same list in every process."""
    return {
        "analyze": [("Analyze", request) for request in analyses(model)],
        "small": [("Analyze", analysis.AnalyzeRequest(model=model,
                                                      input=_ids(12, 12)))],
        "generate": [("Generate", request) for request in _generate(model)],
        "score": [("Score", request) for request in _score(model)],
        "many": [("AnalyzeMany", request) for request in _many(model)],
        "estimate": [("Estimate", request) for request in
                     analyses(model, sizes=(40,))],
        "tokens": _tokens(model),
        "refused": _refused(model),
        "large": _large(model),
        "models": _model(model),
        "strangers": [("GetServerInfo", analysis.GetServerInfoRequest()),
                      *(("Analyze", request)
                        for request in analyses(model, sizes=(4,))[:2])],
    }


# ---------------------------------------------------------------- answers

def _line(what, message):
    digest = hashlib.sha256(message.SerializeToString(deterministic=True))
    return f"{what} {message.ByteSize()} bytes {digest.hexdigest()[:16]}"


def _plain(request):
    """Without what says how the answer travels."""
    request.ClearField("detach")
    request.ClearField("resumable")


def analysis_lines(events):
    """Describes an analysis's events. Arms need not take turns in the same way
    each time, nor comparisons and tokens: each has an order of its own."""
    lines = []
    seq = 0
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "accepted":
            continue
        if event.seq != seq:
            lines.append(f"event {seq} has seq {event.seq}")
        seq += 1
        body = getattr(event, kind)
        arm = getattr(body, "arm", "")
        if kind == "started":
            body.estimate.ClearField("queue_position")
            body.estimate.ClearField("expected_wait_ms")
            _plain(body.expanded)
        elif kind == "finished":
            body.ClearField("times")
            _plain(body.manifest.expanded)
        lines.append((arm, kind, _line(f"{kind} {arm}", body)))
    odd = [line for line in lines if isinstance(line, str)]
    ordered = sorted((line for line in lines if not isinstance(line, str)),
                     key=lambda line: line[:2])
    return odd + [line for _, _, line in ordered]


def _many_lines(events):
    prompts, rest = {}, []
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "prompt":
            prompts.setdefault(event.prompt.id, []).append(event.prompt.event)
        elif kind == "error":
            name = "busy" if event.error.code == _BUSY else "error"
            rest.append(f"{name} {event.error.id} {event.error.code} "
                        f"{event.error.message}")
        else:
            rest.append(_line(kind, event))
    return [f"{name} {line}" for name, of_prompt in prompts.items()
            for line in analysis_lines(of_prompt)] + rest


def _generate_lines(events):
    lines = []
    for event in events:
        if event.WhichOneof("event") == "finished":
            event.finished.ClearField("times")
        lines.append(_line("event", event))
    return lines


def _estimate_lines(answer):
    answer.estimate.ClearField("queue_position")
    answer.estimate.ClearField("expected_wait_ms")
    return [_line("estimate", answer)]


def same_bytes(messages):
    digest = hashlib.sha256(b"".join(messages)).hexdigest()
    return [f"{len(messages)} messages {digest[:16]}"]


_LINES = {"Analyze": analysis_lines, "AnalyzeMany": _many_lines,
          "Generate": _generate_lines, "Estimate": _estimate_lines,
          "GetResult": analysis_lines}


def error_line(failure):
    return f"{failure.code().name}: {failure.details()}"


def retry_s(failure):
    """Returns the error's time to try again in seconds; None without one."""
    for key, value in failure.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in error.RpcStatus.FromString(value).details:
            if detail.type_url.endswith("RetryInfo"):
                delay = error.RetryInfo.FromString(detail.value).retry_delay
                return delay.seconds + delay.nanos / 1e9
    return None


class User:
    """A channel of a user's own."""

    def __init__(self, address, token):
        # gRPC would share a connection, and would try again by itself.
        self.channel = grpc.insecure_channel(address, options=[
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        self.stub = analysis_grpc.AnalysisStub(self.channel)
        self.metadata = ([("authorization", f"Bearer {token}")] if token
                         else [])

    def call(self, method, request, timeout=None):
        if method.startswith("raw "):
            call = self.channel.unary_stream(
                "/qkscope.v1.Analysis/" + method.removeprefix("raw "))
        else:
            call = getattr(self.stub, method)
        if isinstance(request, list):
            request = iter(request)
        return call(request, metadata=self.metadata, timeout=timeout)

    def answer(self, method, request, timeout=None):
        """Returns the lines that describe the answer."""
        got = self.call(method, request, timeout)
        if method.startswith("raw "):
            return same_bytes(list(got))
        if method in _LINES:
            return _LINES[method](got)
        return [_line(method, got)]

    def close(self):
        self.channel.close()
