"""`python -m qkscope report`."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

HELP = "write the one-file HTML report of a saved analysis"


def add_command(parsers: Any) -> None:
    """Adds the command to argparse's subparsers."""
    parser = parsers.add_parser("report", help=HELP, description=HELP)
    add_arguments(parser)
    parser.set_defaults(call=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=pathlib.Path,
                        help="a .safetensors file, as `qkctl analyze --out` "
                        "and Run.to_safetensors write it")
    parser.add_argument("-o", "--out", type=pathlib.Path,
                        help="the page; the file's name with .html by default")
    parser.add_argument("--title", help="the page's title")


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 13 if a file cannot be read or written."""
    import qkscope
    from qkscope.report.assemble import write

    out = arguments.out or arguments.file.with_suffix(".html")
    try:
        write(qkscope.Run.from_safetensors(arguments.file), out,
              title=arguments.title)
    except (OSError, ValueError, ImportError, qkscope.QkscopeError) as error:
        print(f"qkscope: {_sentence(error)}", file=sys.stderr)
        return 13
    print(out)
    return 0


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qkscope report",
                                     description=HELP)
    add_arguments(parser)
    return run(parser.parse_args(words))
