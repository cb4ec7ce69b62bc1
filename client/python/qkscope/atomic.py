"""Writes files so that no reader sees a part of one, and nothing half-written
is left."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from typing import Any, Union

from qkscope.errors import BadFile

PathLike = Union[str, "os.PathLike[str]"]


def file_error(action: str, path: PathLike, error: OSError) -> BadFile:
    """The error of a file that cannot be read or written."""
    text = f"cannot {action} {os.fspath(path)}: {error.strerror or error}"
    folder = os.path.dirname(os.fspath(path))
    if isinstance(error, FileNotFoundError) and folder and (
            not os.path.isdir(folder)):
        text += f": there is no folder {folder}"
    return BadFile(text)


def _is_device(path: str) -> bool:
    """Whether it is neither a regular file nor a folder, such as /dev/null."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _open_temporary(target: str) -> tuple[int, str]:
    folder, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{name}.tmp.",
                                             dir=folder or ".")
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    return descriptor, temporary


def check_writable(path: PathLike) -> None:
    """Finds out whether write_atomically could write `path`, and leaves nothing
    behind. BadFile: it could not."""
    target = os.path.realpath(path)
    try:
        if os.path.isdir(target) or os.fspath(path).endswith(os.sep):
            raise IsADirectoryError(21, "Is a directory")
        if os.path.exists(target) and not os.access(target, os.W_OK):
            raise PermissionError(13, "Permission denied")
        if not _is_device(target):
            descriptor, temporary = _open_temporary(target)
            os.close(descriptor)
            os.unlink(temporary)
    except OSError as error:
        raise file_error("write", path, error) from None


def write_atomically(path: PathLike, parts: Iterable[Any]) -> None:
    """Writes the parts (bytes, or buffers) to a temporary file beside `path`,
    syncs it, and renames it over `path`. A link stays, and the file that it
    leads to is written; a device is written as it is. BadFile: it failed, and
    `path` is as before."""
    target = os.path.realpath(path)
    try:
        if _is_device(target):
            with open(target, "wb", buffering=0) as file:
                for part in parts:
                    file.write(part)
            return
        descriptor, temporary = _open_temporary(target)
        try:
            with open(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise file_error("write", path, error) from None
