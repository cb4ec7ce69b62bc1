"""Lab: a connection to a server, and everything one may ask it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Optional, Union

from qkscope import ops
from qkscope.arms import ArmLike
from qkscope.calls import Deadline, make_options
from qkscope.connection import Connection, Scope
from qkscope.errors import QkscopeError
from qkscope.generation import Generation
from qkscope.many import Aggregate, ManyResult
from qkscope.mapping import MapResult, run_map
from qkscope.progress import Progress, ProgressLike, length, run_progress
from qkscope.retry import retry_delay
from qkscope.run import Run
from qkscope.spec import (GenerateSpec, PromptLike, analyze_request,
                          generate_request)
from qkscope.streams import (AnalyzeSession, DetachSession, GenerateSession,
                             ManySession)
from qkscope.tensor import LayerResult
from qkscope.v1 import analysis_pb2

_CANCEL_TIMEOUT_S = 2.0


def connect(server: Optional[str] = None, *, token: Optional[str] = None,
            token_file: Union[str, "os.PathLike[str]", None] = None,
            tls: bool = False, ca: Any = None, certificate: Any = None,
            key: Any = None, server_name: Optional[str] = None,
            timeout: Optional[float] = None, retries: int = 3) -> "Lab":
    """Returns a Lab. It connects with its first call.

    server: "HOST:PORT", another target of gRPC's, or "file:///PATH", a file or
      folder that lists servers. Default: QKSCOPE_SERVER, or 127.0.0.1:7461.
    token, token_file: the bearer token, or its file. Default: QKSCOPE_TOKEN.
    tls: TLS with the system's authorities. ca, certificate, key: paths or bytes
      of PEM, each of which turns TLS on. server_name: the name in the server's
      certificate, if it differs from the host.
    timeout: seconds for each call, unless it says otherwise.
    retries: of a call that got no answer because the server cannot be reached,
      or is busy and says when to come back.
    """
    options = make_options(server, token=token, token_file=token_file, tls=tls,
                           ca=ca, certificate=certificate, key=key,
                           server_name=server_name)
    return Lab(Connection(options), timeout, retries)


class RunStream:
    """An analysis while it runs: iterate over its LayerResults as they arrive,
    then take `result()`. Leaving a `with` block early cancels it."""

    def __init__(self, session: AnalyzeSession,
                 tensors: Iterator[LayerResult]) -> None:
        self._session = session
        self._tensors = tensors

    def __iter__(self) -> Iterator[LayerResult]:
        return self

    def __next__(self) -> LayerResult:
        return next(self._tensors)

    def result(self) -> Run:
        """Reads what is left, and returns the whole run."""
        for _ in self._tensors:
            pass
        return self._session.run()

    def close(self) -> None:
        """Cancels the analysis unless it has ended."""
        self._tensors.close()  # type: ignore[attr-defined]

    def __enter__(self) -> "RunStream":
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()


class Lab:
    """A connection to a server. Thread-safe; `with` closes it.

    Failures are QkscopeErrors. `timeout` is in seconds, retries included; None
    is the Lab's own.
    """

    def __init__(self, connection: Connection, timeout: Optional[float] = None,
                 retries: int = 3) -> None:
        self._connection = connection
        self._timeout = timeout
        self._retries = retries

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls, and closes the connection."""
        self._connection.close()

    def scope(self) -> "Lab":
        """A Lab on the same connection whose close() ends its own calls
        alone."""
        return Lab(Scope(self._connection), self._timeout, self._retries)

    # ------------------------------------------------------------- call layer

    def _deadline(self, timeout: Optional[float]) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def run(self, op: ops.Op, timeout: Optional[float] = None) -> Any:
        """Makes the calls that an operation asks for, all to one server."""
        deadline = self._deadline(timeout)
        answer = endpoint = None
        while True:
            try:
                call = op.send(answer)
            except StopIteration as end:
                return end.value
            for attempt in itertools.count():
                try:
                    endpoint = endpoint or self._connection.choose(
                        call.request_id, deadline)
                    answer = self._connection.unary(call, deadline, endpoint)
                    break
                except QkscopeError as error:
                    delay = retry_delay(error, attempt)
                    if (delay is None or attempt >= self._retries
                            or not deadline.allows(delay)):
                        raise
                    endpoint = None
                    self._connection.wait(delay)

    def _drive(self, session: Any, deadline: Deadline) -> Iterator[Any]:
        """Makes the calls of a session; yields what its `take` returns."""
        call = session.first_call()
        while call is not None:
            if call.delay:
                self._connection.wait(call.delay)
            failure = None
            events = self._connection.stream(call, deadline)
            try:
                for event in events:
                    item = session.take(event)
                    del event  # The next one may then have its memory.
                    if item is not None:
                        yield item
                        del item
            except QkscopeError as error:
                failure = error
            finally:
                events.close()
            call = session.next_call(failure, deadline)

    def _tensors(self, session: AnalyzeSession,
                 deadline: Deadline) -> Iterator[LayerResult]:
        """Drives an analysis. If its reader goes, so does the request."""
        try:
            yield from self._drive(session, deadline)
        except (GeneratorExit, KeyboardInterrupt):
            request_id = session.left_behind()
            if request_id is not None:
                try:
                    self.cancel(request_id, timeout=_CANCEL_TIMEOUT_S)
                except QkscopeError:
                    pass  # The server drops it when nobody fetches it.
            raise

    # -------------------------------------------------------------- analyses

    def stream(self, model: str, prompt: PromptLike, *,
               keep: bool = True, timeout: Optional[float] = None,
               progress: ProgressLike = None, **spec: Any) -> RunStream:
        """Starts an analysis; its layers come as they are computed. The
        arguments are those of analyze. keep=False: the stream's result has no
        tensors, for those too large to keep."""
        request = analyze_request(model, prompt, **spec)
        return self._stream(request, "", timeout, progress, keep)

    def _stream(self, request: Optional[analysis_pb2.AnalyzeRequest],
                request_id: str, timeout: Optional[float],
                progress: ProgressLike, keep: bool = True) -> RunStream:
        bar = run_progress(progress)
        session = AnalyzeSession(request, request_id=request_id,
                                 retries=self._retries, keep_tensors=keep,
                                 on_event=bar.on_event)
        tensors = self._tensors(session, self._deadline(timeout))
        return RunStream(session, bar.watch(tensors))

    def analyze(self, model: str, prompt: PromptLike, *,
                timeout: Optional[float] = None,
                progress: ProgressLike = None, info: bool = False,
                **spec: Any) -> Run:
        """Runs the prompt through every arm; returns the whole, checked run.

        prompt: text, token ids, or a Prompt.
        arms: list of Arm, or texts as of `qkctl --arm`. Default: clean.
        capture: Capture, or its points. statistics: StatisticsSpec or lambda.
        compare: the baseline's name; None: the first undisrupted arm, or the
          first one; False: no comparison, which saves the logits.
        logits: LogitsSpec, or how many most likely tokens.
        generate: GenerateSpec, or how many new tokens.
        images: files or bytes, for models with a vision tower.
        priority: "interactive" (default) or "batch".
        resumable: the server keeps the result, and a broken stream continues
          where it ended.
        client_tag: free text for the manifest.
        progress: True shows a bar; a callable gets (done, total).
        info: also asks for the ModelInfo, as `run.info`.
        """
        with self.stream(model, prompt, timeout=timeout, progress=progress,
                         **spec) as stream:
            run = stream.result()
        if info:
            run.info = self.model(model, timeout=timeout)
        return run

    def detach(self, model: str, prompt: PromptLike, *,
               timeout: Optional[float] = None, **spec: Any) -> str:
        """Starts an analysis and leaves it running; returns its id for
        `result`. The arguments are those of analyze."""
        request = analyze_request(model, prompt, detach=True, **spec)
        session = DetachSession(request, self._retries)
        for _ in self._drive(session, self._deadline(timeout)):
            pass
        return session.request_id

    def result(self, request_id: str, *, timeout: Optional[float] = None,
               progress: ProgressLike = None) -> Run:
        """Fetches a detached or resumable analysis, and waits for its end."""
        with self._stream(None, request_id, timeout, progress) as stream:
            return stream.result()

    def analyze_many(self, model: str, prompts: Iterable[PromptLike], *,
                     ids: Optional[Iterable[str]] = None,
                     aggregate: bool = False, timeout: Optional[float] = None,
                     progress: ProgressLike = None, **spec: Any) -> Any:
        """Runs many prompts under one spec in one call.

        Returns an iterator of ManyResult, in the order of the prompts, which
        are taken as the server has room; with `aggregate`, an Aggregate: count,
        mean and variance of every norm and statistic over prompts.
        """
        request = analysis_pb2.AnalyzeManySpec(
            request=analyze_request(model, None, **spec))
        if aggregate:
            request.aggregate = True
        session = ManySession(request, prompts, ids, self._retries)
        bar = Progress(progress, "prompts", length(prompts))
        results: Iterator[ManyResult] = bar.watch(
            self._drive(session, self._deadline(timeout)), step=True)
        if not aggregate:
            return results
        whole: Aggregate = session.aggregate
        for result in results:
            if result.error is not None:
                whole.errors[result.id] = result.error
        return whole

    def map(self, prompts: Iterable[Any],
            call: Optional[Callable[["Lab", Any], Any]] = None, *,
            concurrency: int = 16, progress: ProgressLike = None,
            model: Optional[str] = None, **spec: Any) -> Iterator[MapResult]:
        """Calls `call(lab, prompt)` for each prompt, `concurrency` at a time;
        default: analyze(model, prompt, **spec). Yields MapResults in the order
        of the prompts, each with a value or an error. At most 2 x concurrency
        prompts are taken ahead of the one that is yielded."""
        if call is None:
            name = model if model is not None else self.run(
                ops.only_model(), None)

            def call(lab: "Lab", prompt: Any) -> Run:
                return lab.analyze(name, prompt, **spec)
        bar = Progress(progress, "prompts", length(prompts))
        return bar.watch(run_map(self, prompts, call, concurrency), step=True)

    # ------------------------------------------------------- text and scores

    def generate(self, model: str, prompt: PromptLike, *,
                 arm: Optional[ArmLike] = None, max_new_tokens: int = 64,
                 temperature: float = 0, top_p: float = 1, top_k: int = 0,
                 seed: int = 0, stop: Union[str, Sequence[str]] = (),
                 stop_token_ids: Sequence[int] = (), ignore_eos: bool = False,
                 priority: Optional[str] = None,
                 timeout: Optional[float] = None) -> Generation:
        """Generates text, with an optional disruption. Iterate over the tokens
        as they come, or take `result()`; the call begins with the first of
        these. temperature 0 is greedy."""
        spec = GenerateSpec(max_new_tokens, temperature, top_p, top_k, seed,
                            stop, stop_token_ids, ignore_eos)
        session = GenerateSession(
            generate_request(model, prompt, spec, arm=arm, priority=priority),
            self._retries)
        return Generation(session,
                          self._drive(session, self._deadline(timeout)))

    def score(self, model: str, pairs: Sequence[tuple[PromptLike, PromptLike]],
              *, arm: Optional[ArmLike] = None, totals_only: bool = False,
              priority: Optional[str] = None,
              timeout: Optional[float] = None) -> list[ops.Score]:
        """Scores continuations given contexts: log-probabilities in nats. A
        pair is (context, continuation), each a prompt."""
        result: list[ops.Score] = self.run(ops.score(model, pairs, {
            "arm": arm, "totals_only": totals_only, "priority": priority}),
            timeout)
        return result

    def tokenize(self, model: str, prompt: PromptLike, *,
                 timeout: Optional[float] = None) -> ops.Tokens:
        """The prompt's token ids, pieces and byte offsets."""
        result: ops.Tokens = self.run(ops.tokenize(model, prompt), timeout)
        return result

    def detokenize(self, model: str, ids: Iterable[int], *,
                   keep_special: bool = False,
                   timeout: Optional[float] = None) -> str:
        """The text of token ids."""
        result: str = self.run(ops.detokenize(model, ids, keep_special),
                                timeout)
        return result

    def estimate(self, model: str, prompt: PromptLike, *,
                 timeout: Optional[float] = None,
                 **spec: Any) -> ops.Estimate:
        """What analyze would need for the same arguments. Runs nothing."""
        result: ops.Estimate = self.run(
            ops.estimate(analyze_request(model, prompt, **spec)), timeout)
        return result

    # ------------------------------------------------------------ the server

    def server_info(self, *, timeout: Optional[float] = None
                    ) -> analysis_pb2.ServerInfo:
        """Version, limits, backends, chat formats and presets (message)."""
        result: analysis_pb2.ServerInfo = self.run(
            ops.unary("GetServerInfo", analysis_pb2.GetServerInfoRequest()),
            timeout)
        return result

    def models(self, *, timeout: Optional[float] = None
               ) -> list[analysis_pb2.ModelInfo]:
        """The server's models (messages), sorted by name."""
        result: list[analysis_pb2.ModelInfo] = self.run(ops.models(), timeout)
        return result

    def model(self, model: str, *, timeout: Optional[float] = None
              ) -> analysis_pb2.ModelInfo:
        """One model (message). NotFound: there is none of this name."""
        result: analysis_pb2.ModelInfo = self.run(
            ops.unary("GetModel", analysis_pb2.GetModelRequest(model=model)),
            timeout)
        return result

    def health(self, model: str = "", *,
               timeout: Optional[float] = None) -> None:
        """Returns if the server, or the model, serves. Unavailable: it does
        not; NotFound: there is no such model."""
        self.run(ops.health(model), timeout)

    def usage(self, all_users: bool = False, *,
              timeout: Optional[float] = None
              ) -> list[analysis_pb2.UserUsage]:
        """Budget and use (messages), the caller's first. Operators may ask for
        all users."""
        result: list[analysis_pb2.UserUsage] = self.run(
            ops.usage(all_users), timeout)
        return result

    def queue(self, all_users: bool = False, *,
              timeout: Optional[float] = None
              ) -> list[analysis_pb2.ListedRequest]:
        """Requests that wait, run, or have results kept (messages)."""
        result: list[analysis_pb2.ListedRequest] = self.run(
            ops.queue(all_users), timeout)
        return result

    def cancel(self, request_id: str, *,
               timeout: Optional[float] = None) -> bool:
        """Ends a request and deletes its kept result; returns whether it was
        running or waiting."""
        result: bool = self.run(ops.cancel(request_id), timeout)
        return result
