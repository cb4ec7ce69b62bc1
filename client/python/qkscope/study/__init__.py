"""The experiments of arXiv:2502.01563, on any model that a server has.

    python -m qkscope.study run contextual_vs_parametric --model smollm2 \\
        --out results.sqlite
    python -m qkscope.study report results.sqlite -o report

In a program: load() or parse() a study, run_study() it, and read Store.open()
with qkscope.study.results, or write_report(). It needs
pip install 'qkscope[study]'.
"""

from qkscope.study.errors import StudyError
from qkscope.study.report import write_report
from qkscope.study.runner import run_study
from qkscope.study.spec import Study, load, parse, ready
from qkscope.study.store import Store

__all__ = ["Store", "Study", "StudyError", "load", "parse", "ready",
           "run_study", "write_report"]
