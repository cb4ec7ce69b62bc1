"""The report of a run: one HTML file that needs nothing else.

    qkscope.report.write(run, "a.html")
    python -m qkscope report a.safetensors -o a.html
"""

from qkscope.report.assemble import build, write
from qkscope.report.command import add_command

__all__ = ["add_command", "build", "write"]
