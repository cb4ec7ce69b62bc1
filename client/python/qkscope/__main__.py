"""`python -m qkscope`: models, an analysis, and reports, on the command line."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Optional

import qkscope
from qkscope import ops
from qkscope.arm_language import int_list
from qkscope.atomic import check_writable, file_error
from qkscope.errors import QkscopeError
from qkscope.files import write_manifest
from qkscope.report import add_command as add_report
from qkscope.text_view import models_text, run_text

# qkctl's exit codes.
_OTHER, _USAGE, _FILE, _CANCELLED = 1, 2, 13, 8
_CODES = {
    "UNAVAILABLE": 3, "INVALID_ARGUMENT": 4, "OUT_OF_RANGE": 4,
    "FAILED_PRECONDITION": 4, "ALREADY_EXISTS": 4, "UNIMPLEMENTED": 4,
    "NOT_FOUND": 5, "RESOURCE_EXHAUSTED": 6, "CANCELLED": _CANCELLED,
    "DEADLINE_EXCEEDED": 9, "UNAUTHENTICATED": 12, "PERMISSION_DENIED": 12,
}


def exit_code(error: QkscopeError) -> int:
    """The exit code that qkctl has for this failure."""
    if isinstance(error, qkscope.BadFile):
        return _FILE
    if isinstance(error, qkscope.IncompleteStream):
        return 7
    return _CODES.get(error.code, _OTHER)


def _seconds(text: str) -> float:
    try:
        if float(text) > 0:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("must be > 0")


def _numbers(text: str) -> list[int]:
    try:
        return int_list(text)
    except Exception as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_connection(parser: argparse.ArgumentParser) -> None:
    """Flags that may stand before the command and after it, as qkctl's."""
    parser.add_argument("--server", metavar="ADDR",
                        help="default 127.0.0.1:7461 (environment: "
                        "QKSCOPE_SERVER), or file:///PATH, a list of servers")
    parser.add_argument("--token-file", metavar="FILE",
                        help="file with the bearer token (environment: "
                        "QKSCOPE_TOKEN, the token itself)")
    parser.add_argument("--tls", action="store_true",
                        help="use TLS and the system's authorities")
    parser.add_argument("--tls-ca", metavar="FILE",
                        help="use TLS and trust this authority (PEM)")
    parser.add_argument("--tls-cert", metavar="FILE",
                        help="use TLS with this client certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (PEM)")
    parser.add_argument("--tls-server-name", metavar="NAME",
                        help="name in the server's certificate")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS")
    parser.add_argument("--retries", type=int, metavar="N",
                        help="if the server is busy or cannot be reached "
                        "(default 3)")


def _connect(arguments: argparse.Namespace) -> qkscope.Lab:
    return qkscope.connect(
        arguments.server, token_file=arguments.token_file, tls=arguments.tls,
        ca=arguments.tls_ca, certificate=arguments.tls_cert,
        key=arguments.tls_key, server_name=arguments.tls_server_name,
        timeout=arguments.timeout,
        retries=3 if arguments.retries is None else arguments.retries)


def _models(arguments: argparse.Namespace) -> int:
    with _connect(arguments) as lab:
        if arguments.name is not None:
            sys.stdout.write(str(lab.model(arguments.name)))
        else:
            sys.stdout.write(models_text(lab.models(),
                                         lab.server_info()))
    return 0


def _prompt(arguments: argparse.Namespace) -> Any:
    if arguments.token_ids is not None:
        return arguments.token_ids
    text: Any = arguments.prompt
    if arguments.prompt_file is not None:
        try:
            text = pathlib.Path(arguments.prompt_file).read_bytes()
        except OSError as error:
            raise file_error("read", arguments.prompt_file, error) from None
    elif text == "-":
        text = sys.stdin.buffer.read()
    return qkscope.Prompt(text, parse_special=arguments.parse_special or None)


def _capture(arguments: argparse.Namespace) -> qkscope.Capture:
    points = arguments.points.split(",") if arguments.points else None
    return qkscope.Capture(layers=arguments.layers, points=points,
                           form=arguments.form, stage=arguments.stage,
                           phase=arguments.phase)


def _analyze(arguments: argparse.Namespace) -> int:
    for path in (arguments.out, arguments.manifest):
        if path is not None:
            check_writable(path)
    with _connect(arguments) as lab:
        model = arguments.model
        if model is None:
            try:
                model = lab.run(ops.only_model())
            except qkscope.InvalidRequest as error:
                print(f"qkscope: --{error}", file=sys.stderr)
                return _USAGE
        run = lab.analyze(
            model, _prompt(arguments),
            arms=arguments.arm or None, capture=_capture(arguments),
            statistics=arguments.lambda_,
            compare=False if arguments.no_compare else arguments.baseline,
            generate=arguments.max_new_tokens, priority=arguments.priority,
            progress=True if sys.stderr.isatty() else None)
    sys.stdout.write(run_text(run, arguments.all_arms))
    if arguments.out is not None:
        run.to_safetensors(arguments.out)
    if arguments.manifest is not None:
        write_manifest(run, arguments.manifest)
    return 0


def _add_analyze(parsers: Any) -> None:
    # SUPPRESS: what stood before the command stays.
    parser = parsers.add_parser(
        "analyze", help="run a prompt through every arm and show its massive "
        "values", argument_default=argparse.SUPPRESS)
    _add_connection(parser)
    parser.argument_default = None
    parser.add_argument("--model", help="default: the server's only model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="- is standard input")
    source.add_argument("--prompt-file", metavar="FILE")
    source.add_argument("--token-ids", type=_numbers, metavar="IDS")
    parser.add_argument("--parse-special", action="store_true",
                        help="text that spells a special token becomes it")
    parser.add_argument("--arm", action="append", metavar="[NAME=]SPEC",
                        help="clean, top_k:1, ..., as in qkctl; may be repeated")
    parser.add_argument("--baseline", metavar="ARM")
    parser.add_argument("--no-compare", action="store_true")
    parser.add_argument("--points", metavar="LIST")
    parser.add_argument("--layers", type=_numbers, metavar="LIST")
    parser.add_argument("--form")
    parser.add_argument("--stage")
    parser.add_argument("--phase")
    parser.add_argument("--lambda", type=float, dest="lambda_",
                        metavar="NUMBER")
    parser.add_argument("--max-new-tokens", type=int, metavar="N")
    parser.add_argument("--priority", metavar="CLASS")
    parser.add_argument("--all-arms", action="store_true",
                        help="show the rows of all arms, not only of the first")
    parser.add_argument("--out", metavar="FILE",
                        help="save tensors and manifest as .safetensors")
    parser.add_argument("--manifest", metavar="FILE",
                        help="save the manifest as JSON")
    parser.set_defaults(call=_analyze)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qkscope", description="A client of qkscope.",
        epilog="qkctl is the whole command line; its exit codes hold here.")
    parser.add_argument("--version", action="version",
                        version=qkscope.__version__)
    _add_connection(parser)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    models = parsers.add_parser("models", help="list the server's models",
                                argument_default=argparse.SUPPRESS)
    _add_connection(models)
    models.argument_default = None
    models.add_argument("name", nargs="?", help="show all of one model")
    models.set_defaults(call=_models)
    _add_analyze(parsers)
    add_report(parsers)
    return parser


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs a command; returns its exit code."""
    arguments = make_parser().parse_args(words)
    try:
        status: int = arguments.call(arguments)
        sys.stdout.flush()
        return status
    except QkscopeError as error:
        print(f"qkscope: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _OTHER
    except KeyboardInterrupt:
        print("qkscope: cancelled", file=sys.stderr)
        return _CANCELLED


if __name__ == "__main__":
    sys.exit(main())
