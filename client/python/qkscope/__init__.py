"""A client of qkscope: where massive values are in Q and K, and what breaking
them does.

    import qkscope
    from qkscope import Arm

    with qkscope.connect("127.0.0.1:7461") as lab:
        run = lab.analyze("smollm2", "The city of Paris is in",
                          arms=[Arm.clean(), Arm.top_k(1), Arm.control()])
    run["clean"].q.norms          # (layers, heads, head_dim)
    run["top_k:1"].comparison     # KL, changed tokens, log-probabilities
"""

from qkscope._version import __version__
from qkscope.aio import AsyncLab, AsyncRunStream, connect_async
from qkscope.arms import Arm, Rule
from qkscope.captured import Captured
from qkscope.errors import (BadFile, Cancelled, DeadlineExceeded,
                            IncompleteStream, InvalidRequest, MissingExtra,
                            NotFound, OverLimit, PermissionDenied, QkscopeError,
                            ServerError, ShapesDiffer, Unauthenticated,
                            Unavailable, VersionMismatch)
from qkscope.generation import Generation
from qkscope.lab import Lab, RunStream, connect
from qkscope.many import Aggregate, AggregateEntry, ManyResult
from qkscope.mapping import MapResult
from qkscope.ops import Estimate, Score, Tokens
from qkscope.run import ArmResult, Comparison, PositionLogits, Run, Token
from qkscope.spec import (Capture, GenerateSpec, LogitsSpec, Prompt,
                          StatisticsSpec)
from qkscope.tensor import LayerResult, MassiveEntry, Statistics

__all__ = [
    "Aggregate", "AggregateEntry", "Arm", "ArmResult", "AsyncLab",
    "AsyncRunStream", "BadFile", "Cancelled",
    "Capture", "Captured", "Comparison", "DeadlineExceeded", "Estimate",
    "GenerateSpec", "Generation", "IncompleteStream", "InvalidRequest", "Lab",
    "LayerResult", "LogitsSpec", "ManyResult", "MapResult", "MassiveEntry",
    "MissingExtra", "NotFound", "OverLimit", "PermissionDenied",
    "PositionLogits", "Prompt", "QkscopeError", "Rule", "Run", "RunStream",
    "Score", "ServerError", "ShapesDiffer", "Statistics", "StatisticsSpec",
    "Token", "Tokens", "Unauthenticated", "Unavailable", "VersionMismatch",
    "__version__", "connect", "connect_async",
]
