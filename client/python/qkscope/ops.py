"""The unary calls, each as a generator that yields Calls, receives their
answers, and returns a result. Pure; both call layers run these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from qkscope.calls import SERVING, Call
from qkscope.errors import InvalidRequest, NotFound, ServerError, Unavailable
from qkscope.spec import PromptLike, input_proto, score_request
from qkscope.v1 import analysis_pb2 as v1

Op = Generator[Call, Any, Any]

_HEALTH = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenised prompt.

    ids; pieces: bytes of each token; offsets: [begin, end) in the text's bytes,
    equal for tokens that the tokenizer added; special: whether it is special.
    """
    ids: list[int]
    pieces: list[bytes]
    offsets: list[tuple[int, int]]
    special: list[bool]

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a request would need. streamed_bytes: of payload; peak_extra_bytes:
    memory on device and host; expected_wait: seconds; expanded: the request
    with every default (message)."""
    prompt_tokens: int
    streamed_bytes: int
    peak_extra_bytes: int
    queue_position: int
    expected_wait: float
    expanded: v1.AnalyzeRequest


@dataclasses.dataclass(frozen=True)
class Score:
    """A continuation's score.

    logprob: sum over its tokens, in nats. is_greedy: each token was the most
    likely. token_logprobs, token_greedy: (tokens,); empty with totals_only.
    non_finite: tokens whose logits are not finite.
    """
    logprob: float
    is_greedy: bool
    token_logprobs: npt.NDArray[np.float32]
    token_greedy: npt.NDArray[np.bool_]
    context_tokens: int
    continuation_tokens: int
    non_finite: int


def unary(method: str, request: Any) -> Op:
    return (yield Call(method, request))


def all_parts(method: str, request: Any) -> Op:
    """Asks for all parts of a list; returns them as one answer."""
    whole = None
    while True:
        part = yield Call(method, request)
        more = part.HasField("next_offset")
        following = part.next_offset
        part.ClearField("next_offset")
        if whole is None:
            whole = part
        else:
            whole.MergeFrom(part)
        if not more:
            return whole
        if following <= request.offset:
            raise ServerError(f"the server's next_offset {following} follows "
                              f"offset {request.offset}")
        request.offset = following


def models() -> Op:
    answer = yield from all_parts("ListModels", v1.ListModelsRequest())
    return list(answer.models)


def usage(all_users: bool) -> Op:
    answer = yield from all_parts("GetUsage",
                                  v1.GetUsageRequest(all_users=all_users))
    return list(answer.users)


def queue(all_users: bool) -> Op:
    answer = yield from all_parts("ListRequests",
                                  v1.ListRequestsRequest(all_users=all_users))
    return list(answer.requests)


def cancel(request_id: str) -> Op:
    answer = yield Call("Cancel", v1.CancelRequest(request_id=request_id),
                        request_id)
    return answer.was_running


def health(model: str) -> Op:
    answer = yield Call("Check", v1.GetModelRequest(model=model))
    if answer.offset != SERVING:
        state = _HEALTH.get(answer.offset, str(answer.offset))
        raise Unavailable(f"the server reports {state}"
                          + (f" of model '{model}'" if model else ""))
    return None


def tokenize(model: str, prompt: PromptLike) -> Op:
    answer = yield from all_parts(
        "Tokenize", v1.TokenizeRequest(model=model, input=input_proto(prompt)))
    tokens = answer.tokens
    return Tokens([token.id for token in tokens],
                  [token.piece for token in tokens],
                  [(token.begin, token.end) for token in tokens],
                  [token.special for token in tokens])


def detokenize(model: str, ids: Iterable[int], keep_special: bool) -> Op:
    request = v1.DetokenizeRequest(model=model, token_ids=list(map(int, ids)))
    if keep_special:
        request.keep_special = True
    answer = yield Call("Detokenize", request)
    return answer.text.decode(errors="replace")


def estimate(request: v1.AnalyzeRequest) -> Op:
    answer = yield Call("Estimate", request)
    needs = answer.estimate
    return Estimate(needs.prompt_tokens, needs.streamed_bytes,
                    needs.peak_extra_bytes, needs.queue_position,
                    needs.expected_wait_ms / 1000, answer.expanded)


def score(model: str, pairs: Sequence[tuple[PromptLike, PromptLike]],
          options: dict[str, Any]) -> Op:
    """Scores the pairs, in as many calls as the server's limit asks for."""
    request = score_request(model, pairs, **options)
    if not request.pairs:
        return []
    info = None
    if len(request.pairs) > 64:
        info = yield Call("GetServerInfo", v1.GetServerInfoRequest())
    most = info.limits.max_score_pairs if info else len(request.pairs)
    whole = list(request.pairs)
    scores: list[Score] = []
    for begin in range(0, len(whole), most):
        del request.pairs[:]
        request.pairs.extend(whole[begin:begin + most])
        answer = yield Call("Score", request)
        scores.extend(map(_score, answer.results))
        if len(scores) != min(begin + most, len(whole)):
            raise ServerError(f"asked for {len(request.pairs)} scores, got "
                              f"{len(answer.results)}")
    return scores


def _score(result: v1.ScoreResult) -> Score:
    return Score(result.logprob, result.is_greedy,
                 np.array(result.token_logprobs, np.float32),
                 np.array(result.token_greedy, bool), result.context_tokens,
                 result.continuation_tokens, result.non_finite)


def only_model() -> Op:
    """The name of the server's only model."""
    names = [model.name for model in (yield from models())]
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFound("the server has no model")
    raise InvalidRequest("model: the server has several",
                         field="model", remedy="name one of "
                         + ", ".join(names))
