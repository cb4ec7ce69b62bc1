"""The command line: python -m qkscope.study COMMAND ..."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

import qkscope
from qkscope import QkscopeError
from qkscope.study import report, results, rope_origin, runner, spec
from qkscope.study.errors import StudyError
from qkscope.study.store import Store
from qkscope.study.tasks import TASKS

_EXAMPLES = """examples:
  python -m qkscope.study list
  python -m qkscope.study run contextual_vs_parametric --model smollm2 \\
      --out results.sqlite
  python -m qkscope.study report results.sqlite -o report
  python -m qkscope.study rope_origin --model smollm2
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, 2 wrong usage, 130 Ctrl-C."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.call(parsed))
    except QkscopeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qkscope.study", epilog=_EXAMPLES,
        description="The experiments of arXiv:2502.01563 on any served model.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], int], text: str
            ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(call=call)
        return command

    run = add("run", _run, "run a study, or go on with one")
    run.add_argument("study", help="a .toml file, or the name of a ready study")
    run.add_argument("--out", type=pathlib.Path, help="the file of results "
                     "(default: the study's name, .sqlite)")
    run.add_argument("--data", type=pathlib.Path,
                     help="the folder with AQuA, GSM8K and IMDB")
    run.add_argument("--model", action="append", default=[],
                     metavar="NAME[:FORMAT]", help="instead of the study's "
                     "models; FORMAT is auto, none or a chat format of the "
                     "server's")
    run.add_argument("--task", action="append", default=[], help="only this "
                     "task of the study; may be repeated")
    run.add_argument("--count", type=int, help="items of each task")
    run.add_argument("--concurrency", type=int, default=runner.CONCURRENCY,
                     help="prompts in flight (default %(default)s)")
    _server_flags(run)
    shown = add("report", _report,
                "write the report's page, tables and figures")
    shown.add_argument("results", type=pathlib.Path)
    shown.add_argument("-o", "--out", type=pathlib.Path, required=True,
                       help="a folder")
    table = add("table", _table, "print the tables of a file of results")
    table.add_argument("results", type=pathlib.Path)
    table.add_argument("--csv", choices=("scores", "tests", "layers"),
                       help="this table as CSV")
    add("list", _list, "list the ready studies and the tasks")
    rope = add("rope_origin", _rope_origin,
               (rope_origin.__doc__ or "").split("\n\n")[0])
    rope.add_argument("--model", required=True)
    rope.add_argument("--prompt", default=rope_origin.PROMPT)
    rope.add_argument("--prompt-file", type=pathlib.Path)
    _server_flags(rope)
    return parser


def _server_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", help="HOST:PORT (default: QKSCOPE_SERVER, "
                        "then 127.0.0.1:7461)")
    parser.add_argument("--token-file", type=pathlib.Path)
    parser.add_argument("--ca", type=pathlib.Path,
                        help="the authority that signed the server's "
                        "certificate (PEM); uses TLS")


def _connect(parsed: argparse.Namespace) -> qkscope.Lab:
    return qkscope.connect(parsed.server, token_file=parsed.token_file,
                           ca=parsed.ca)


def _run(parsed: argparse.Namespace) -> int:
    study = _changed(spec.load(parsed.study), parsed)
    out = parsed.out or pathlib.Path(f"{study.name}.sqlite")
    if parsed.concurrency < 1:
        raise StudyError("--concurrency must be at least 1")
    with _connect(parsed) as lab, Progress() as progress:
        runner.run_study(lab, study, out, data=parsed.data,
                         concurrency=parsed.concurrency, progress=progress)
    print(f"{out} is complete; python -m qkscope.study report {out} -o FOLDER "
          "shows it")
    return 0


def _changed(study: spec.Study, parsed: argparse.Namespace) -> spec.Study:
    """The study as the command line changes it; checked again."""
    models = [dict(zip(("name", "chat_format"), text.split(":", 1)))
              for text in parsed.model]
    tasks = [task for task in study.tasks
             if not parsed.task or task.name in parsed.task]
    for name in parsed.task:
        if name not in {task.name for task in tasks}:
            raise StudyError(f"--task {name}: the study has no such task")
    if parsed.count is not None:
        if parsed.count < 1:
            raise StudyError("--count must be at least 1")
        tasks = [dataclasses.replace(task, count=parsed.count)
                 for task in tasks]
    study = dataclasses.replace(study, tasks=tuple(tasks))
    if models:
        study = dataclasses.replace(study, models=spec.models_of(
            models, "--model"))
    return study


class Progress:
    """How far a run is: a bar on a terminal, a line now and then elsewhere."""

    LINE_EVERY_S = 10.0

    def __init__(self) -> None:
        self._bar: Any = None
        self._last = float("-inf")

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (BarColumn, MofNCompleteColumn,
                                       Progress as Bar, TextColumn)
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(),
                            MofNCompleteColumn(),
                            TextColumn("{task.fields[end]}"),
                            console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=None, end="")
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, now: runner.Estimate) -> None:
        end = _end(now.seconds_left)
        if self._bar is not None:
            self._bar.update(self._task, description=now.task, end=end,
                             completed=now.units_done, total=now.units)
            return
        last = now.units_done == now.units
        if last or time.monotonic() - self._last >= self.LINE_EVERY_S:
            self._last = time.monotonic()
            print(f"{now.units_done} of {now.units}"
                  + (f" ({now.task})" if now.task else "")
                  + (f", {end}" if end and not last else ""),
                  file=sys.stderr, flush=True)


def _end(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    left = (f"{hours} h {minutes} min" if hours else
            f"{minutes} min {seconds} s" if minutes else f"{seconds} s")
    return f"about {left} left"


def _report(parsed: argparse.Namespace) -> int:
    for path in report.write_report(parsed.results, parsed.out):
        print(path)
    return 0


def _table(parsed: argparse.Namespace) -> int:
    with Store.open(parsed.results) as store, store.understood():
        if parsed.csv:
            print(report.tables(store).get(parsed.csv, ""), end="")
            return 0
        done, planned = store.counts()
        print(f"{store.study.name}: {done} of {planned} prompts")
        for row in results.score_rows(store):
            score = row.accuracy
            print(f"{row.model:16} {row.task:20} {row.arm:12} {row.scorer:11}"
                  f"{score.share:7.1%}  {score.low:6.1%} to {score.high:6.1%}"
                  f"  of {score.items}")
        for test in results.test_rows(store):
            print(f"{test.model:16} {test.task:20} {test.first} - "
                  f"{test.second}, {test.scorer}: {test.test.lost} lost, "
                  f"{test.test.won} won, p {test.test.p:.4g}, Holm "
                  f"{test.test.p_holm:.4g}")
        for total in results.totals(results.layer_means(store)):
            share = total.low_frequency_share
            print(f"{total.model:16} {total.arm:12} {total.point:12}"
                  f"{total.massive_count:9.2f} massive"
                  + (f", {share:.0%} in slow dims" if share is not None else "")
                  + f", in {total.layers_with} of {total.layers} layers")
        for model, arm, kl, flips in results.comparison_means(store):
            print(f"{model:16} {arm:12} KL "
                  + ("not finite" if kl is None else f"{kl:.4f}")
                  + f", {flips:.1%} of next tokens change")
    return 0


def _list(parsed: argparse.Namespace) -> int:
    del parsed
    print("ready studies:")
    for name, text in spec.ready().items():
        study = spec.parse(text, name)
        print(f"  {name:26} {study.title}: "
              f"{', '.join(task.name for task in study.tasks)}")
    print("tasks:")
    for task in TASKS.values():
        print(f"  {task.name:20} {task.knowledge:11} {task.summary}")
    return 0


def _rope_origin(parsed: argparse.Namespace) -> int:
    prompt = parsed.prompt
    if parsed.prompt_file:
        try:
            prompt = parsed.prompt_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"{parsed.prompt_file} cannot be read: {error}"
                             ) from error
    with _connect(parsed) as lab:
        print(rope_origin.table(lab, parsed.model, prompt))
    return 0


if __name__ == "__main__":
    sys.exit(main())
