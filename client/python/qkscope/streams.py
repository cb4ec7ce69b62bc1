"""What happens between the calls of one stream: which call comes first, which
after a break, and when it is over. Pure; both call layers drive these.

    call = session.first_call()
    while call is not None:
        ...wait call.delay, make the call, session.take(each event)...
        call = session.next_call(error, deadline)
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

from qkscope.calls import Call, Deadline
from qkscope.checker import StreamChecker, violation
from qkscope.errors import (QkscopeError, broken_stream, from_code, incomplete)
from qkscope.many import Aggregate, ManyResult
from qkscope.retry import backoff, retry_delay
from qkscope.run import Run, RunParts
from qkscope.spec import PromptLike, input_proto
from qkscope.tensor import LayerResult
from qkscope.v1 import analysis_pb2 as v1
from qkscope.wire import Event, from_message

# Consecutive resumptions that bring no further event, unless the call has more
# retries; the pauses between them grow to that of this attempt, about a second.
_MAX_RESUMES = 3
_LONGEST_PAUSE = 2
_GONE = ("UNAVAILABLE", "UNKNOWN", "INTERNAL")

EventCallback = Callable[[str, Any], None]


class RunBuilder:
    """Makes a Run of the events of one stream, each of them checked."""

    def __init__(self, keep_tensors: bool = True) -> None:
        self._checker = StreamChecker()
        self._keep = keep_tensors
        self.parts = RunParts()

    @property
    def finished(self) -> bool:
        return self._checker.finished

    @property
    def events(self) -> int:
        return self._checker.events

    def add(self, event: Event) -> Optional[LayerResult]:
        """Returns a tensor that is now complete. IncompleteStream: the stream
        breaks a promise."""
        tensor = self._checker.add(event)
        if event.kind == "layer":
            if tensor is not None and self._keep:
                self.parts.tensors.append(tensor)
        else:
            self.parts.add(event)
        return tensor

    def run(self) -> Run:
        return Run(self.parts)


class AnalyzeSession:
    """One Analyze, or the fetching of a kept result, over one or several
    calls."""

    def __init__(self, request: Optional[v1.AnalyzeRequest], *,
                 request_id: str = "", retries: int = 0,
                 keep_tensors: bool = True,
                 on_event: Optional[EventCallback] = None) -> None:
        self._request = request
        self._request_id = request_id
        self._retries = retries
        self._keep_tensors = keep_tensors
        self._on_event = on_event
        self._attempt = 0
        self._violation: Optional[QkscopeError] = None
        self._reset()

    def _reset(self) -> None:
        self._builder = RunBuilder(self._keep_tensors)
        self._begun = False
        self._broken = 0
        self._before = 0  # events before the call in progress

    @property
    def finished(self) -> bool:
        return self._builder.finished

    def run(self) -> Run:
        return self._builder.run()

    def first_call(self) -> Call:
        if self._request is None:
            return self._resume()
        return Call("Analyze", self._request)

    def _resume(self, delay: float = 0.0) -> Call:
        self._before = self._builder.events
        request_id = self._request_id or self._builder.parts.request_id
        return Call("GetResult",
                    v1.GetResultRequest(request_id=request_id,
                                        from_seq=self._before),
                    request_id, delay)

    def take(self, event: Event) -> Optional[LayerResult]:
        self._begun = True
        try:
            tensor = self._builder.add(event)
        except QkscopeError as error:
            error.request_id = self._builder.parts.request_id
            self._violation = error
            raise
        if self._on_event is not None and event.kind is not None:
            self._on_event(event.kind, event.body)
        return tensor

    def _may_resume(self, error: Optional[QkscopeError]) -> bool:
        kept = self._request is None or self._request.resumable
        known = self._request_id or self._builder.parts.request_id
        return bool(self._begun and kept and known and error is not None
                    and error.code in _GONE)

    def next_call(self, error: Optional[QkscopeError],
                  deadline: Deadline) -> Optional[Call]:
        """After a call has ended, with this error or without: the call that
        continues it, or None if all is there. Raises what cannot be mended.

        The answer is complete once Finished has arrived; a status after that
        does not change it."""
        if self._violation is not None:
            raise self._violation
        if self.finished:
            return None
        if self._may_resume(error):
            progress = self._builder.events > self._before
            self._broken = 0 if progress else self._broken + 1
            if self._broken <= max(_MAX_RESUMES, self._retries):
                return self._resume(
                    0 if progress else backoff(min(self._broken,
                                                   _LONGEST_PAUSE)))
        if error is None or self._begun:
            error = broken_stream(error, self._builder.events)
        if not error.request_id:
            error.request_id = self._builder.parts.request_id
        # Once something has been handed over, it cannot be taken back.
        call = None
        if self._builder.events == 0:
            call = self._retry(error, deadline)
        if call is None:
            raise error
        return call

    def _retry(self, error: QkscopeError,
               deadline: Deadline) -> Optional[Call]:
        if self._attempt >= self._retries:
            return None
        delay = retry_delay(error, self._attempt)
        if delay is None or not deadline.allows(delay):
            return None
        self._attempt += 1
        self._reset()
        call = self.first_call()
        call.delay = delay
        return call

    def left_behind(self) -> Optional[str]:
        """The id of a request that continues on the server although its reader
        has gone, and that nobody has asked to keep."""
        if self._request is None or not self._request.resumable:
            return None
        if self.finished or self._violation is not None:
            return None
        return self._builder.parts.request_id or None


class DetachSession:
    """An Analyze that leaves its request running; `request_id` is its id."""

    def __init__(self, request: v1.AnalyzeRequest, retries: int = 0) -> None:
        self._request = request
        self._retries = retries
        self._attempt = 0
        self.request_id = ""

    def first_call(self) -> Call:
        return Call("Analyze", self._request)

    def take(self, event: Event) -> None:
        if event.kind == "accepted":
            self.request_id = event.body.request_id

    def next_call(self, error: Optional[QkscopeError],
                  deadline: Deadline) -> Optional[Call]:
        if error is None and self.request_id:
            return None
        if error is None:
            raise incomplete("it ended without Accepted")
        delay = retry_delay(error, self._attempt)
        if (delay is None or self.request_id or not deadline.allows(delay)
                or self._attempt >= self._retries):
            raise error
        self._attempt += 1
        return Call("Analyze", self._request, delay=delay)


class GenerateSession:
    """One Generate; take returns its tokens."""

    def __init__(self, request: v1.GenerateRequest, retries: int = 0) -> None:
        self._request = request
        self._retries = retries
        self._attempt = 0
        self._events = 0
        self.end: Optional[v1.GenerateFinished] = None

    def first_call(self) -> Call:
        return Call("Generate", self._request)

    def take(self, event: v1.GenerateEvent) -> Optional[v1.Token]:
        self._events += 1
        kind = event.WhichOneof("event")
        if kind == "finished":
            self.end = event.finished
        return event.token if kind == "token" else None

    def next_call(self, error: Optional[QkscopeError],
                  deadline: Deadline) -> Optional[Call]:
        if self.end is not None:
            return None
        if error is None or self._events > 0:
            raise broken_stream(error, self._events)
        delay = retry_delay(error, self._attempt)
        if (delay is None or self._attempt >= self._retries
                or not deadline.allows(delay)):
            raise error
        self._attempt += 1
        return Call("Generate", self._request, delay=delay)


class ManySession:
    """One AnalyzeMany; take returns a ManyResult for each prompt, in order."""

    def __init__(self, spec: v1.AnalyzeManySpec, prompts: Iterable[PromptLike],
                 ids: Optional[Iterable[str]] = None, retries: int = 0) -> None:
        self._spec = spec
        numbered = ((str(i), prompt) for i, prompt in enumerate(prompts))
        self._rest = (numbered if ids is None else
                      ((id_, prompt) for id_, (_, prompt)
                       in zip(ids, numbered)))
        self._again: list[v1.AnalyzeManyPrompt] = []
        self._retries = retries
        self._attempt = 0
        self._events = 0
        self._sent: collections.deque[str] = collections.deque()
        self._bad_prompt: Optional[BaseException] = None
        self._violation: Optional[QkscopeError] = None
        self._builder: Optional[RunBuilder] = None
        self._done = self._failed = 0
        self._end: Optional[v1.ManyFinished] = None
        self.aggregate = Aggregate()

    def first_call(self) -> Call:
        self._sent.clear()
        return Call("AnalyzeMany", self._messages())

    def _messages(self) -> Iterator[v1.AnalyzeManyRequest]:
        """What is sent. gRPC asks for the next message once the one before has
        gone, so at most a window of them is ahead of the server."""
        yield v1.AnalyzeManyRequest(spec=self._spec)
        try:
            again, self._again = self._again, []
            for message in itertools.chain(again, map(self._prompt,
                                                      self._rest)):
                self._sent.append(message.id)
                if self._events == 0:
                    self._again.append(message)
                yield v1.AnalyzeManyRequest(prompt=message)
        except GeneratorExit:
            raise
        except BaseException as error:  # pylint: disable=broad-except
            self._bad_prompt = error  # gRPC would only print it

    @staticmethod
    def _prompt(item: tuple[str, PromptLike]) -> v1.AnalyzeManyPrompt:
        return v1.AnalyzeManyPrompt(id=item[0], input=input_proto(item[1]))

    def take(self, event: v1.AnalyzeManyEvent) -> Optional[ManyResult]:
        self._events += 1
        self._again.clear()
        try:
            return self._take(event)
        except QkscopeError as error:
            self._violation = error
            raise

    def _take(self, event: v1.AnalyzeManyEvent) -> Optional[ManyResult]:
        if self._end is not None:
            raise violation("an event after the summary")
        kind = event.WhichOneof("event")
        if kind == "prompt":
            return self._take_event(event.prompt)
        if kind == "error":
            id_ = self._check_next(event.error.id)
            if event.error.code == 0:
                raise violation(f"prompt '{id_}' failed with the code OK")
            self._failed += 1
            return self._prompt_end(ManyResult(
                id_, None, from_code(event.error.code, event.error.message)))
        if kind == "aggregate":
            self.aggregate.add(event.aggregate)
        elif kind == "finished":
            self._check_finished(event.finished)
        return None

    def _check_next(self, id_: str) -> str:
        if not self._sent:
            raise violation(f"got prompt '{id_}' after the last one")
        if id_ != self._sent[0]:
            raise violation(f"expected prompt '{self._sent[0]}', got '{id_}'")
        return id_

    def _take_event(self, event: v1.ManyPromptEvent) -> Optional[ManyResult]:
        self._check_next(event.id)
        if self._builder is None:
            self._builder = RunBuilder()
        self._builder.add(from_message(event.event))
        if not self._builder.finished:
            return None
        return self._prompt_end(ManyResult(event.id, self._builder.run(), None))

    def _prompt_end(self, result: ManyResult) -> ManyResult:
        self._builder = None
        self._sent.popleft()
        self._done += 1
        return result

    def _check_finished(self, end: v1.ManyFinished) -> None:
        if self._sent:
            raise violation("the summary came before the end of prompt "
                            f"'{self._sent[0]}'")
        if end.prompts != self._done or end.failed != self._failed:
            raise violation(
                f"the summary counts {end.prompts} prompts, {end.failed} "
                f"failed, got {self._done}, {self._failed} failed")
        self._end = end

    def next_call(self, error: Optional[QkscopeError],
                  deadline: Deadline) -> Optional[Call]:
        if self._bad_prompt is not None:
            raise self._bad_prompt
        if self._violation is not None:
            raise self._violation
        if self._end is not None:
            return None
        if error is None or self._events > 0:
            raise broken_stream(error, self._events)
        delay = retry_delay(error, self._attempt)
        if (delay is None or self._attempt >= self._retries
                or not deadline.allows(delay)):
            raise error
        self._attempt += 1
        call = self.first_call()
        call.delay = delay
        return call
