"""AsyncLab: Lab's twin for asyncio. Same methods, as coroutines and async
iterators; what they mean is in lab.py."""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
from collections.abc import (AsyncIterator, Awaitable, Callable, Iterable,
                             Sequence)
from typing import Any, Optional, Union

from qkscope import ops
from qkscope.aio_connection import AsyncConnection
from qkscope.arms import ArmLike
from qkscope.calls import Deadline, make_options
from qkscope.errors import QkscopeError
from qkscope.generation import AsyncGeneration
from qkscope.many import Aggregate, ManyResult
from qkscope.mapping import MapResult, check_concurrency
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


def connect_async(server: Optional[str] = None, *, token: Optional[str] = None,
                  token_file: Union[str, "os.PathLike[str]", None] = None,
                  tls: bool = False, ca: Any = None, certificate: Any = None,
                  key: Any = None, server_name: Optional[str] = None,
                  timeout: Optional[float] = None,
                  retries: int = 3) -> "AsyncLab":
    """connect, for asyncio."""
    options = make_options(server, token=token, token_file=token_file, tls=tls,
                           ca=ca, certificate=certificate, key=key,
                           server_name=server_name)
    return AsyncLab(AsyncConnection(options), timeout, retries)


class AsyncRunStream:
    """An analysis while it runs: `async for` its LayerResults, then await
    `result()`. Leaving an `async with` block early cancels it."""

    def __init__(self, session: AnalyzeSession,
                 tensors: AsyncIterator[LayerResult]) -> None:
        self._session = session
        self._tensors = tensors

    def __aiter__(self) -> AsyncIterator[LayerResult]:
        return self

    async def __anext__(self) -> LayerResult:
        return await self._tensors.__anext__()

    async def result(self) -> Run:
        """Reads what is left, and returns the whole run."""
        async for _ in self._tensors:
            pass
        return self._session.run()

    async def close(self) -> None:
        """Cancels the analysis unless it has ended."""
        await self._tensors.aclose()  # type: ignore[attr-defined]

    async def __aenter__(self) -> "AsyncRunStream":
        return self

    async def __aexit__(self, *unused: Any) -> None:
        await self.close()


class AsyncLab:
    """A connection to a server, for one event loop; `async with` closes it."""

    def __init__(self, connection: AsyncConnection,
                 timeout: Optional[float] = None, retries: int = 3) -> None:
        self._connection = connection
        self._timeout = timeout
        self._retries = retries

    async def __aenter__(self) -> "AsyncLab":
        return self

    async def __aexit__(self, *unused: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls, and closes the connection."""
        await self._connection.close()

    # ------------------------------------------------------------- call layer

    def _deadline(self, timeout: Optional[float]) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    async def run(self, op: ops.Op, timeout: Optional[float] = None) -> Any:
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
                    endpoint = endpoint or await self._connection.choose(
                        call.request_id, deadline)
                    answer = await self._connection.unary(call, deadline,
                                                          endpoint)
                    break
                except QkscopeError as error:
                    delay = retry_delay(error, attempt)
                    if (delay is None or attempt >= self._retries
                            or not deadline.allows(delay)):
                        raise
                    endpoint = None
                    await self._connection.wait(delay)

    async def _drive(self, session: Any,
                     deadline: Deadline) -> AsyncIterator[Any]:
        """Makes the calls of a session; yields what its `take` returns."""
        call = session.first_call()
        while call is not None:
            if call.delay:
                await self._connection.wait(call.delay)
            failure = None
            events = self._connection.stream(call, deadline)
            try:
                async for event in events:
                    item = session.take(event)
                    del event  # The next one may then have its memory.
                    if item is not None:
                        yield item
                        del item
            except QkscopeError as error:
                failure = error
            finally:
                await events.aclose()
            call = session.next_call(failure, deadline)

    async def _tensors(self, session: AnalyzeSession,
                       deadline: Deadline) -> AsyncIterator[LayerResult]:
        """Drives an analysis. If its reader goes, so does the request."""
        tensors = self._drive(session, deadline)
        try:
            async for tensor in tensors:
                yield tensor
        except (GeneratorExit, asyncio.CancelledError):
            request_id = session.left_behind()
            if request_id is not None:
                try:
                    await self.cancel(request_id, timeout=_CANCEL_TIMEOUT_S)
                except QkscopeError:
                    pass  # The server drops it when nobody fetches it.
            raise
        finally:
            await tensors.aclose()  # type: ignore[attr-defined]

    # -------------------------------------------------------------- analyses

    def stream(self, model: str, prompt: PromptLike, *,
               keep: bool = True, timeout: Optional[float] = None,
               progress: ProgressLike = None, **spec: Any) -> AsyncRunStream:
        """Lab.stream."""
        return self._stream(analyze_request(model, prompt, **spec), "",
                            timeout, progress, keep)

    def _stream(self, request: Optional[analysis_pb2.AnalyzeRequest],
                request_id: str, timeout: Optional[float],
                progress: ProgressLike, keep: bool = True) -> AsyncRunStream:
        bar = run_progress(progress)
        session = AnalyzeSession(request, request_id=request_id,
                                 retries=self._retries, keep_tensors=keep,
                                 on_event=bar.on_event)
        return AsyncRunStream(session, bar.watch_async(
            self._tensors(session, self._deadline(timeout))))

    async def analyze(self, model: str, prompt: PromptLike, *,
                      timeout: Optional[float] = None,
                      progress: ProgressLike = None, info: bool = False,
                      **spec: Any) -> Run:
        """Lab.analyze."""
        async with self.stream(model, prompt, timeout=timeout,
                               progress=progress, **spec) as stream:
            run = await stream.result()
        if info:
            run.info = await self.model(model, timeout=timeout)
        return run

    async def detach(self, model: str, prompt: PromptLike, *,
                     timeout: Optional[float] = None, **spec: Any) -> str:
        """Lab.detach."""
        request = analyze_request(model, prompt, detach=True, **spec)
        session = DetachSession(request, self._retries)
        async for _ in self._drive(session, self._deadline(timeout)):
            pass
        return session.request_id

    async def result(self, request_id: str, *,
                     timeout: Optional[float] = None,
                     progress: ProgressLike = None) -> Run:
        """Lab.result."""
        async with self._stream(None, request_id, timeout, progress) as stream:
            return await stream.result()

    def analyze_many(self, model: str, prompts: Iterable[PromptLike], *,
                     ids: Optional[Iterable[str]] = None,
                     timeout: Optional[float] = None,
                     progress: ProgressLike = None,
                     **spec: Any) -> AsyncIterator[ManyResult]:
        """Lab.analyze_many without an aggregate."""
        return self._many(ManySession(
            analysis_pb2.AnalyzeManySpec(
                request=analyze_request(model, None, **spec)),
            prompts, ids, self._retries), prompts, timeout, progress)

    def _many(self, session: ManySession, prompts: Any,
              timeout: Optional[float],
              progress: ProgressLike) -> AsyncIterator[ManyResult]:
        bar = Progress(progress, "prompts", length(prompts))
        return bar.watch_async(self._drive(session, self._deadline(timeout)),
                               step=True)

    async def aggregate(self, model: str, prompts: Iterable[PromptLike], *,
                        ids: Optional[Iterable[str]] = None,
                        timeout: Optional[float] = None,
                        progress: ProgressLike = None,
                        **spec: Any) -> Aggregate:
        """Lab.analyze_many with aggregate=True."""
        session = ManySession(
            analysis_pb2.AnalyzeManySpec(
                request=analyze_request(model, None, **spec), aggregate=True),
            prompts, ids, self._retries)
        async for result in self._many(session, prompts, timeout, progress):
            if result.error is not None:
                session.aggregate.errors[result.id] = result.error
        return session.aggregate

    async def map(self, prompts: Iterable[Any],
                  call: Optional[Callable[["AsyncLab", Any],
                                          Awaitable[Any]]] = None, *,
                  concurrency: int = 16, progress: ProgressLike = None,
                  model: Optional[str] = None,
                  **spec: Any) -> AsyncIterator[MapResult]:
        """Lab.map; `call` is a coroutine function."""
        check_concurrency(concurrency)
        if call is None:
            name = model or await self.run(ops.only_model(), None)

            def call(lab: "AsyncLab", prompt: Any) -> Awaitable[Run]:
                return lab.analyze(name, prompt, **spec)
        bar = Progress(progress, "prompts", length(prompts))
        async for result in bar.watch_async(
                self._map(prompts, call, concurrency), step=True):
            yield result

    async def _map(self, prompts: Iterable[Any], call: Any,
                   concurrency: int) -> AsyncIterator[MapResult]:
        room = asyncio.Semaphore(concurrency)

        async def one(index: int, prompt: Any) -> MapResult:
            async with room:
                try:
                    return MapResult(index, prompt, await call(self, prompt))
                except Exception as error:  # pylint: disable=broad-except
                    return MapResult(index, prompt, error=error)

        waiting: collections.deque[asyncio.Task[MapResult]] = (
            collections.deque())
        try:
            for index, prompt in enumerate(prompts):
                waiting.append(asyncio.create_task(one(index, prompt)))
                if len(waiting) >= 2 * concurrency:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    # ------------------------------------------------------- text and scores

    def generate(self, model: str, prompt: PromptLike, *,
                 arm: Optional[ArmLike] = None, max_new_tokens: int = 64,
                 temperature: float = 0, top_p: float = 1, top_k: int = 0,
                 seed: int = 0, stop: Union[str, Sequence[str]] = (),
                 stop_token_ids: Sequence[int] = (), ignore_eos: bool = False,
                 priority: Optional[str] = None,
                 timeout: Optional[float] = None) -> AsyncGeneration:
        """Lab.generate; `async for` its tokens, or await `result()`."""
        spec = GenerateSpec(max_new_tokens, temperature, top_p, top_k, seed,
                            stop, stop_token_ids, ignore_eos)
        session = GenerateSession(
            generate_request(model, prompt, spec, arm=arm, priority=priority),
            self._retries)
        return AsyncGeneration(session,
                               self._drive(session, self._deadline(timeout)))

    async def score(self, model: str,
                    pairs: Sequence[tuple[PromptLike, PromptLike]], *,
                    arm: Optional[ArmLike] = None, totals_only: bool = False,
                    priority: Optional[str] = None,
                    timeout: Optional[float] = None) -> list[ops.Score]:
        """Lab.score."""
        result: list[ops.Score] = await self.run(ops.score(model, pairs, {
            "arm": arm, "totals_only": totals_only, "priority": priority}),
            timeout)
        return result

    async def tokenize(self, model: str, prompt: PromptLike, *,
                       timeout: Optional[float] = None) -> ops.Tokens:
        """Lab.tokenize."""
        result: ops.Tokens = await self.run(ops.tokenize(model, prompt),
                                             timeout)
        return result

    async def detokenize(self, model: str, ids: Iterable[int], *,
                         keep_special: bool = False,
                         timeout: Optional[float] = None) -> str:
        """Lab.detokenize."""
        result: str = await self.run(
            ops.detokenize(model, ids, keep_special), timeout)
        return result

    async def estimate(self, model: str, prompt: PromptLike, *,
                       timeout: Optional[float] = None,
                       **spec: Any) -> ops.Estimate:
        """Lab.estimate."""
        result: ops.Estimate = await self.run(
            ops.estimate(analyze_request(model, prompt, **spec)), timeout)
        return result

    # ------------------------------------------------------------ the server

    async def server_info(self, *, timeout: Optional[float] = None
                          ) -> analysis_pb2.ServerInfo:
        """Lab.server_info."""
        result: analysis_pb2.ServerInfo = await self.run(
            ops.unary("GetServerInfo", analysis_pb2.GetServerInfoRequest()),
            timeout)
        return result

    async def models(self, *, timeout: Optional[float] = None
                     ) -> list[analysis_pb2.ModelInfo]:
        """Lab.models."""
        result: list[analysis_pb2.ModelInfo] = await self.run(ops.models(),
                                                               timeout)
        return result

    async def model(self, model: str, *, timeout: Optional[float] = None
                    ) -> analysis_pb2.ModelInfo:
        """Lab.model."""
        result: analysis_pb2.ModelInfo = await self.run(
            ops.unary("GetModel", analysis_pb2.GetModelRequest(model=model)),
            timeout)
        return result

    async def health(self, model: str = "", *,
                     timeout: Optional[float] = None) -> None:
        """Lab.health."""
        await self.run(ops.health(model), timeout)

    async def usage(self, all_users: bool = False, *,
                    timeout: Optional[float] = None
                    ) -> list[analysis_pb2.UserUsage]:
        """Lab.usage."""
        result: list[analysis_pb2.UserUsage] = await self.run(
            ops.usage(all_users), timeout)
        return result

    async def queue(self, all_users: bool = False, *,
                    timeout: Optional[float] = None
                    ) -> list[analysis_pb2.ListedRequest]:
        """Lab.queue."""
        result: list[analysis_pb2.ListedRequest] = await self.run(
            ops.queue(all_users), timeout)
        return result

    async def cancel(self, request_id: str, *,
                     timeout: Optional[float] = None) -> bool:
        """Lab.cancel."""
        result: bool = await self.run(ops.cancel(request_id), timeout)
        return result
