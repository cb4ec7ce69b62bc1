"""What AnalyzeMany answers: a result or an error per prompt, or an aggregate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from qkscope import enums
from qkscope.errors import QkscopeError
from qkscope.run import Run
from qkscope.v1 import analysis_pb2, spec_pb2


@dataclasses.dataclass(frozen=True)
class ManyResult:
    """One prompt's end: `run`, or `error`, and the prompt's id."""
    id: str
    run: Optional[Run]
    error: Optional[QkscopeError]


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and population variance of a statistic over prompts."""
    count: int
    mean: float
    variance: float


class AggregateEntry:
    """Moments of one (arm, point, layer, stage, phase) over all prompts.

    count: prompts. mean, variance: of the norms, (heads, head_dim) float32.
    massive_count, ratio, max, low_frequency_share: Moments.
    """

    def __init__(self, proto: analysis_pb2.AggregateEntry) -> None:
        self.arm = proto.arm
        self.layer = proto.layer
        self.point = enums.name(spec_pb2.HookPoint, proto.point)
        self.stage = enums.name(spec_pb2.Stage, proto.stage)
        self.phase = enums.name(spec_pb2.Phase, proto.phase)
        self.count = proto.count
        self.vision = proto.vision
        self.group_size = proto.group_size
        self.non_finite_count = proto.non_finite_count
        shape = tuple(proto.shape)
        self.mean: npt.NDArray[np.float32] = np.frombuffer(
            proto.mean, "<f4").reshape(shape)
        self.variance: npt.NDArray[np.float32] = np.frombuffer(
            proto.variance, "<f4").reshape(shape)
        self.massive_count = _moments(proto.massive_count)
        self.ratio = _moments(proto.ratio)
        self.max = _moments(proto.max)
        self.low_frequency_share = _moments(proto.low_frequency_share)

    def __repr__(self) -> str:
        return (f"<AggregateEntry {self.arm}/layer.{self.layer}.{self.point}, "
                f"{self.count} prompts>")


def _moments(proto: analysis_pb2.Moments) -> Moments:
    return Moments(proto.count, proto.mean, proto.variance)


class Aggregate:
    """The aggregate of AnalyzeMany: a sequence of entries."""

    def __init__(self) -> None:
        self.entries: list[AggregateEntry] = []
        # Prompts that failed: their ids and errors.
        self.errors: dict[str, QkscopeError] = {}

    def add(self, proto: analysis_pb2.Aggregate) -> None:
        self.entries.extend(map(AggregateEntry, proto.entries))

    def select(self, **fields: Any) -> list[AggregateEntry]:
        """The entries with these fields: select(arm="clean", layer=3)."""
        return [entry for entry in self.entries
                if all(getattr(entry, name) == value
                       for name, value in fields.items())]

    def __iter__(self) -> Iterator[AggregateEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
