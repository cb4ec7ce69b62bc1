"""The exception for what a caller of this package can put right, and small
helpers for its sentences."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from qkscope.errors import QkscopeError


class StudyError(QkscopeError, ValueError):
    """A study, a file of results or a data folder is not as it must be. The
    message is one sentence that names the place and what is allowed."""
    code = "FAILED_PRECONDITION"


def excerpt(value: object, limit: int = 60) -> str:
    """A value of somebody else's file, short and on one line."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit - 3] + "..."


def choices(values: object) -> str:
    """"a, b or c"."""
    names = [str(value) for value in values]  # type: ignore[attr-defined]
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + " or " + names[-1]


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to; it takes the place of `path` if all went well, and
    nothing is left otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StudyError(f"{path} cannot be written: "
                         f"{error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
