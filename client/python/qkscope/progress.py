"""Progress bars by rich, on terminals and in notebooks, for work that lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Optional, TypeVar, Union

ProgressLike = Union[bool, Callable[[int, Optional[int]], None], None]

Item = TypeVar("Item")

# A bar appears only once the work has lasted so long, unless it was asked for.
_PATIENCE_S = 2.0


def _interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook."""
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()


def length(items: Any) -> Optional[int]:
    return len(items) if hasattr(items, "__len__") else None


class Progress:
    """Counts items. `wish`: True shows a bar, False none, None shows one where
    somebody watches and the work lasts; a callable gets (done, total)."""

    def __init__(self, wish: ProgressLike, unit: str,
                 total: Optional[int] = None) -> None:
        self.done = 0
        self.total = total
        self._unit = unit
        self._call = wish if callable(wish) else None
        self._show = wish is True or (wish is None and _interactive())
        self._from = time.monotonic() + (0 if wish is True else _PATIENCE_S)
        self._bar: Any = None
        self._task: Any = None

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self._call is not None:
            self._call(self.done, self.total)
        if not self._show:
            return
        if self._bar is None and time.monotonic() >= self._from:
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self.total)

    def _open(self) -> None:
        from rich import progress
        from rich.console import Console
        console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(),
            progress.MofNCompleteColumn(), progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(), console=console,
            transient=console.is_terminal)
        self._task = self._bar.add_task(self._unit, total=self.total)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._show = False

    def watch(self, items: Iterator[Item], step: bool = False
              ) -> Iterator[Item]:
        """Yields the items; with `step`, counts them. Closing it closes the
        items, too."""
        try:
            for item in items:
                if step:
                    self.advance()
                yield item
        finally:
            self.close()
            getattr(items, "close", lambda: None)()

    async def watch_async(self, items: AsyncIterator[Item], step: bool = False
                          ) -> AsyncIterator[Item]:
        """watch, for async iterators."""
        try:
            async for item in items:
                if step:
                    self.advance()
                yield item
        finally:
            self.close()
            await items.aclose()  # type: ignore[attr-defined]


class RunProgress(Progress):
    """Counts the layers of all arms, and generated tokens, of one analysis."""

    def __init__(self, wish: ProgressLike) -> None:
        super().__init__(wish, "layers")
        self._seen: set[tuple[str, int, int]] = set()

    def on_event(self, kind: str, body: Any) -> None:
        if kind == "started":
            expanded = body.expanded
            layers = len(expanded.capture.layers)
            if layers and not expanded.HasField("generate"):
                self.total = layers * len(expanded.arms)
        elif kind == "layer":
            place = body.arm, body.layer, body.phase
            if place not in self._seen:
                self._seen.add(place)
                self.advance()
        elif kind == "token":
            self.advance()


class _Silent(RunProgress):
    """No bar, and no cost."""

    on_event = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(False)


def run_progress(wish: ProgressLike) -> RunProgress:
    return RunProgress(wish) if callable(wish) or wish is True else _Silent()
