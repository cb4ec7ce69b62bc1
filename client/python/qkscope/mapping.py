"""Lab.map: many calls at a time, in order, with back-pressure."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

from qkscope.errors import InvalidRequest, QkscopeError


@dataclasses.dataclass(frozen=True)
class MapResult:
    """The prompt's index and the prompt; `value`, or the `error` of its call."""
    index: int
    prompt: Any
    value: Any = None
    error: Optional[BaseException] = None


def check_concurrency(concurrency: int) -> None:
    if concurrency < 1:
        raise InvalidRequest(f"concurrency: must be at least 1, got "
                             f"{concurrency}", field="concurrency")


def run_map(lab: Any, prompts: Iterable[Any],
            call: Callable[[Any, Any], Any],
            concurrency: int) -> Iterator[MapResult]:
    """Calls `call(lab, prompt)` in threads. At most 2 x concurrency prompts are
    ahead of the one that is yielded. When its reader leaves, or on Ctrl-C, no
    further call begins, and those that run are cancelled with their streams."""
    check_concurrency(concurrency)
    return _run(lab, prompts, call, concurrency)


def _run(lab: Any, prompts: Iterable[Any], call: Callable[[Any, Any], Any],
         concurrency: int) -> Iterator[MapResult]:
    scope = lab.scope()
    stopped = threading.Event()

    def one(prompt: Any) -> Any:
        if stopped.is_set():
            raise concurrent.futures.CancelledError
        return call(scope, prompt)

    pool = concurrent.futures.ThreadPoolExecutor(concurrency, "qkscope-map")
    waiting: collections.deque[tuple[int, Any, Any]] = collections.deque()
    source = enumerate(prompts)
    try:
        more = True
        while more or waiting:
            while more and len(waiting) < 2 * concurrency:
                item = next(source, None)
                if item is None:
                    more = False
                else:
                    waiting.append((*item, pool.submit(one, item[1])))
            if waiting:
                index, prompt, future = waiting.popleft()
                yield _result(index, prompt, future)
    finally:
        stopped.set()
        scope.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _result(index: int, prompt: Any,
            future: "concurrent.futures.Future[Any]") -> MapResult:
    try:
        return MapResult(index, prompt, future.result())
    except QkscopeError as error:
        return MapResult(index, prompt, error=error)
    except Exception as error:  # pylint: disable=broad-except
        return MapResult(index, prompt, error=error)
