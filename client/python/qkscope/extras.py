"""Imports of packages that only an extra installs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from qkscope.errors import MissingExtra


def need(module: str, extra: str) -> Any:
    """The module. MissingExtra: how to install what has it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs the package {module.partition('.')[0]} ({error})",
            remedy=f"pip install 'qkscope[{extra}]'") from None


def toml() -> Any:
    """The module tomllib, or tomli, which has its functions, on Python 3.10."""
    return need("tomli" if sys.version_info < (3, 11) else "tomllib", "study")
