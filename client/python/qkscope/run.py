"""The result of an analysis: a Run of ArmResults of Captured tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from qkscope import enums
from qkscope.arms import is_undisrupted, kind_of
from qkscope.captured import Captured, group
from qkscope.errors import NotFound
from qkscope.tensor import LayerResult
from qkscope.v1 import analysis_pb2, spec_pb2
from qkscope.wire import Event


class RunParts:
    """The messages and tensors that a Run is made of."""

    def __init__(self) -> None:
        self.request_id = ""
        self.started = analysis_pb2.Started()
        self.tensors: list[LayerResult] = []
        self.applied: list[analysis_pb2.Applied] = []
        self.tokens: list[analysis_pb2.Token] = []
        self.comparisons: list[analysis_pb2.Comparison] = []
        self.logits: list[analysis_pb2.Logits] = []
        self.finished = analysis_pb2.Finished()

    def add(self, event: Event) -> None:
        """Keeps an event other than a Layer."""
        if event.kind == "accepted":
            self.request_id = event.body.request_id
        elif event.kind == "started":
            self.started = event.body
        elif event.kind == "finished":
            self.finished = event.body
        elif event.kind is not None:
            name = {"comparison": "comparisons", "token": "tokens"}.get(
                event.kind, event.kind)
            getattr(self, name).append(event.body)


class Comparison:
    """An arm against the baseline, per prompt position.

    kl: KL(P_base || P_arm) in nats; token_logprob: of token t given those
      before it (entry 0 has no meaning); top1_flip: whether the most likely
      next token differs; top1_id: the arm's. All (positions,).
    mean_kl, mean_logprob (from entry 1 on), top1_flips: over positions.
    non_finite: positions whose logits are not finite; values are NaN there.
    """

    def __init__(self, proto: analysis_pb2.Comparison) -> None:
        self.proto = proto
        self.arm = proto.arm
        self.baseline = proto.baseline
        self.kl = np.array(proto.kl, np.float32)
        self.token_logprob = np.array(proto.token_logprob, np.float32)
        self.top1_flip = np.array(proto.top1_flip, bool)
        self.top1_id = np.array(proto.top1_id, np.int32)
        self.mean_kl = proto.mean_kl
        self.mean_logprob = proto.mean_logprob
        self.top1_flips = proto.top1_flips
        self.non_finite = proto.non_finite

    def __repr__(self) -> str:
        return (f"Comparison(arm={self.arm!r}, baseline={self.baseline!r}, "
                f"mean_kl={self.mean_kl:.4g}, top1_flips={self.top1_flips}/"
                f"{len(self.kl)}, mean_logprob={self.mean_logprob:.4g})")


class Token:
    """A generated token: step (from 0), id, text (what it completes) and
    logprob in nats."""

    __slots__ = ("step", "id", "text", "logprob")

    def __init__(self, proto: analysis_pb2.Token) -> None:
        self.step = proto.step
        self.id = proto.id
        self.text = proto.text.decode(errors="replace")
        self.logprob = proto.logprob

    def __repr__(self) -> str:
        return f"Token(step={self.step}, id={self.id}, text={self.text!r})"


class PositionLogits:
    """The most likely next tokens after one position: ids (top_n,) and
    logprobs (top_n,), in nats."""

    def __init__(self, proto: analysis_pb2.PositionLogits) -> None:
        self.position = proto.position
        self.ids = np.array(proto.ids, np.int32)
        self.logprobs = np.array(proto.logprobs, np.float32)

    def __repr__(self) -> str:
        return f"<PositionLogits of {self.position}: {len(self.ids)} ids>"


class ArmResult:
    """One arm of a run.

    name; kind: "clean", "disrupted" or "control"; spec: the expanded Arm
    message; captured: all Captured; q, k, v and the like: those of one point.
    comparison: against the baseline, or None. logits: list of PositionLogits.
    applied: Applied messages, what each rule chose and wrote. tokens, text and
    stop_reason: of a generation. non_finite: NonFinite message.
    """

    def __init__(self, parts: RunParts, spec: spec_pb2.Arm) -> None:
        self.spec = spec
        self.name: str = spec.name
        self.kind = kind_of(spec)
        self.captured = group([tensor for tensor in parts.tensors
                               if tensor.header.arm == self.name])
        compared = [Comparison(comparison) for comparison in parts.comparisons
                    if comparison.arm == self.name]
        self.comparison = compared[-1] if compared else None
        self.logits = [PositionLogits(position) for logits in parts.logits
                       if logits.arm == self.name
                       for position in logits.positions]
        self.applied = [applied for applied in parts.applied
                        if applied.arm == self.name]
        self.tokens = [Token(token) for token in parts.tokens
                       if token.arm == self.name]
        summary = analysis_pb2.ArmSummary()
        for other in parts.finished.arms:
            if other.arm == self.name:
                summary = other
        self.text: str = summary.generated_text.decode(errors="replace")
        self.stop_reason: str = summary.stop_reason
        self.non_finite = summary.non_finite

    @property
    def replaced(self) -> int:
        """Values that the arm has overwritten."""
        return sum(applied.replaced for applied in self.applied)

    def point(self, point: str, stage: Optional[str] = None,
              phase: Optional[str] = None, step: Optional[int] = None,
              image: Optional[int] = None) -> Captured:
        """The tensors of one hook point, such as "hook_rot_q". Where stage and
        phase are not given: "before" and "prefill" if these were captured,
        else what there is. NotFound: it was not captured."""
        found = [c for c in self.captured
                 if c.point == point and c.image == image
                 and stage in (None, c.stage) and phase in (None, c.phase)
                 and (step == c.step or (step is None and phase is None))]
        if found:
            return min(found, key=lambda c: (c.phase != "prefill",
                                             c.stage != "before",
                                             c.step or 0))
        there = sorted({c.label for c in self.captured})
        raise NotFound(
            f"arm '{self.name}' has no {point}"
            + "".join(f", {name} {value}" for name, value in
                      (("stage", stage), ("phase", phase), ("step", step),
                       ("image", image)) if value is not None),
            remedy="it has " + (", ".join(there) or "no captured tensors"))

    @property
    def q(self) -> Captured:
        """hook_rot_q: Q after RoPE."""
        return self.point("hook_rot_q")

    @property
    def k(self) -> Captured:
        """hook_rot_k: K after RoPE."""
        return self.point("hook_rot_k")

    @property
    def v(self) -> Captured:
        """hook_v."""
        return self.point("hook_v")

    @property
    def q_pre(self) -> Captured:
        """hook_q: Q before RoPE."""
        return self.point("hook_q")

    @property
    def k_pre(self) -> Captured:
        """hook_k: K before RoPE."""
        return self.point("hook_k")

    @property
    def z(self) -> Captured:
        """hook_z: attention's output before o_proj."""
        return self.point("hook_z")

    @property
    def pattern(self) -> Captured:
        """hook_pattern: attention's probabilities."""
        return self.point("hook_pattern")

    def __repr__(self) -> str:
        points = sorted({c.label for c in self.captured})
        return f"<ArmResult {self.name} ({self.kind}): {', '.join(points)}>"


class Run:
    """The result of an analysis, complete and checked.

    request_id; model: its name; token_ids: of the prompt; manifest: Manifest
    message; expanded: the request with every default; times: Times message, in
    milliseconds; arms: names; tensors: all LayerResults, in order of arrival;
    info: ModelInfo message, or None unless analyze was asked for it.

    run["clean"] is an ArmResult, and iteration goes over all.
    """

    def __init__(self, parts: RunParts,
                 info: Optional[analysis_pb2.ModelInfo] = None) -> None:
        self.parts = parts
        self.info = info
        self._arms: dict[str, ArmResult] = {}

    @property
    def request_id(self) -> str:
        return self.parts.request_id

    @property
    def manifest(self) -> analysis_pb2.Manifest:
        return self.parts.finished.manifest

    @property
    def expanded(self) -> analysis_pb2.AnalyzeRequest:
        return self.manifest.expanded

    @property
    def model(self) -> str:
        return self.manifest.model

    @property
    def token_ids(self) -> list[int]:
        return list(self.manifest.token_ids)

    @property
    def times(self) -> analysis_pb2.Times:
        return self.parts.finished.times

    @property
    def tensors(self) -> Sequence[LayerResult]:
        return self.parts.tensors

    @property
    def arms(self) -> list[str]:
        return [arm.name for arm in self.expanded.arms]

    def __getitem__(self, name: Union[str, int]) -> ArmResult:
        """The arm of this name, or number. NotFound: there is none."""
        if isinstance(name, int):
            name = self.arms[name]
        if name not in self._arms:
            for spec in self.expanded.arms:
                if spec.name == name:
                    self._arms[name] = ArmResult(self.parts, spec)
        if name not in self._arms:
            raise NotFound(f"the run has no arm '{name}'",
                           remedy="it has " + ", ".join(self.arms)
                           + enums.did_you_mean(name, self.arms))
        return self._arms[name]

    def __iter__(self) -> Iterator[ArmResult]:
        return (self[name] for name in self.arms)

    def __len__(self) -> int:
        return len(self.arms)

    def __contains__(self, name: object) -> bool:
        return name in self.arms

    @property
    def baseline(self) -> ArmResult:
        """The arm that others are compared with: the request's baseline, or the
        first undisrupted arm, or the first arm."""
        arms = list(self.expanded.arms)
        named = [arm for arm in arms
                 if arm.name == self.expanded.compare.baseline]
        clean = [arm for arm in arms if is_undisrupted(arm)]
        return self[(named or clean or arms)[0].name]

    def to_safetensors(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes the file that `qkctl analyze --out` writes, completely or not
        at all. BadFile: why not."""
        from qkscope.files import write_safetensors
        write_safetensors(self, path)

    @classmethod
    def from_safetensors(cls, path: Union[str, "os.PathLike[str]"]) -> "Run":
        """Reads a file of qkctl's --out or of to_safetensors. BadFile: what is
        wrong with it."""
        from qkscope.files import read_safetensors
        return read_safetensors(path)

    def to_xarray(self) -> Any:
        """An xarray.DataTree, arm/layer_N, with a variable per tensor. Needs
        the extra "data"."""
        from qkscope.tables import to_xarray
        return to_xarray(self)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row per arm, layer and point, and their
        statistics. Needs pandas and the extra "data"."""
        from qkscope.tables import to_pandas
        return to_pandas(self)

    def to_polars(self) -> Any:
        """The same as a polars.DataFrame."""
        from qkscope.tables import to_polars
        return to_polars(self)

    def cache_dict(self, arm: Optional[str] = None
                   ) -> dict[str, npt.NDArray[Any]]:
        """The raw tensors of one arm (default: the baseline) under
        TransformerLens's keys, "blocks.3.attn.hook_rot_q", with a batch of 1 in
        front: (1, positions, heads, head_dim); hook_pattern: (1, heads,
        positions, keys). InvalidRequest: tensors are no raw values."""
        from qkscope.captured import cache_dict
        return cache_dict(self[arm] if arm is not None else self.baseline)

    def _repr_html_(self) -> str:
        from qkscope.display import run_html
        return run_html(self)

    def __repr__(self) -> str:
        return (f"<Run of {self.model}: {len(self.manifest.token_ids)} tokens, "
                f"arms {', '.join(self.arms)}, {len(self.tensors)} tensors>")
