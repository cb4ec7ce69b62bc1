"""`python -m qkscope report`."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

HELP = "write the one-file HTML report of a saved analysis"


def add_command(parsers: Any) -> None:
    """Adds the command to argparse's subparsers; `call` runs it."""
    parser = parsers.add_parser("report", help=HELP, description=HELP)
    parser.add_argument("file", type=pathlib.Path,
                        help="a .safetensors file, as `qkctl analyze --out` "
                        "and Run.to_safetensors write it")
    parser.add_argument("-o", "--out", type=pathlib.Path,
                        help="the page; the file's name with .html by default")
    parser.add_argument("--title", help="the page's title")
    parser.set_defaults(call=_report)


def _report(arguments: argparse.Namespace) -> int:
    import qkscope
    from qkscope.atomic import check_writable
    from qkscope.report.assemble import write

    out = arguments.out or arguments.file.with_suffix(".html")
    run = qkscope.Run.from_safetensors(arguments.file)
    check_writable(out)
    if os.path.exists(out) and os.path.samefile(arguments.file, out):
        raise qkscope.BadFile(f"{out} is the analysis itself",
                              remedy="name another file with --out")
    write(run, out, title=arguments.title)
    print(out)
    return 0
