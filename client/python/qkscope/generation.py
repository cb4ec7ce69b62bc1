"""A generation while it runs, and when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Optional

from qkscope.run import Token
from qkscope.v1 import analysis_pb2


class GenerationParts:
    """What has arrived so far.

    tokens: list of Token. text: the whole text, once finished; before, the
    tokens' so far. stop_reason: "length", "stop_token", "stop_string",
    "non_finite", or "" before the end. prompt_tokens; non_finite (NonFinite
    message); times (Times message): once finished, else None.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.tokens: list[Token] = []

    def _add(self, proto: analysis_pb2.Token) -> Token:
        token = Token(proto)
        self.tokens.append(token)
        return token

    @property
    def _end(self) -> Optional[analysis_pb2.GenerateFinished]:
        end: Optional[analysis_pb2.GenerateFinished] = self._session.end
        return end

    @property
    def finished(self) -> bool:
        return self._end is not None

    @property
    def text(self) -> str:
        if self._end is None:
            return "".join(token.text for token in self.tokens)
        return self._end.summary.generated_text.decode(errors="replace")

    @property
    def stop_reason(self) -> str:
        return self._end.summary.stop_reason if self._end is not None else ""

    @property
    def prompt_tokens(self) -> Optional[int]:
        return self._end.prompt_tokens if self._end is not None else None

    @property
    def non_finite(self) -> Optional[analysis_pb2.NonFinite]:
        return self._end.summary.non_finite if self._end is not None else None

    @property
    def times(self) -> Optional[analysis_pb2.Times]:
        return self._end.times if self._end is not None else None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        state = self.stop_reason or "running"
        return f"<Generation: {len(self.tokens)} tokens, {state}>"


class Generation(GenerationParts):
    """A generation: iterate over its tokens as they come, or take `result()`.
    Leaving a `with` block ends it."""

    def __init__(self, session: Any, events: Iterator[Any]) -> None:
        super().__init__(session)
        self._events = events

    def __iter__(self) -> Iterator[Token]:
        """The tokens, those that have come included."""
        yield from list(self.tokens)
        for proto in self._events:
            yield self._add(proto)

    def result(self) -> "Generation":
        """Reads to the end; returns itself."""
        for proto in self._events:
            self._add(proto)
        return self

    def close(self) -> None:
        self._events.close()  # type: ignore[attr-defined]

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()


class AsyncGeneration(GenerationParts):
    """The same, for `async for` and `async with`."""

    def __init__(self, session: Any, events: AsyncIterator[Any]) -> None:
        super().__init__(session)
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Token]:
        for token in list(self.tokens):
            yield token
        async for proto in self._events:
            yield self._add(proto)

    async def result(self) -> "AsyncGeneration":
        """Reads to the end; returns itself."""
        async for proto in self._events:
            self._add(proto)
        return self

    async def close(self) -> None:
        await self._events.aclose()  # type: ignore[attr-defined]

    async def __aenter__(self) -> "AsyncGeneration":
        return self

    async def __aexit__(self, *unused: Any) -> None:
        await self.close()
