"""Arms: the ways in which a request runs its prompt.

    Arm.clean()                      nothing is changed
    Arm.top_k(1)                     each head's largest dim of Q and K
    Arm.control()                    the smallest one instead
    Arm.parse("top_k:1,replace=zero,layers=0-3")

The text form is the language of `qkctl --arm`. What a rule means exactly is in
the comments of proto/qkscope/v1/spec.proto.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

from qkscope import enums
from qkscope.errors import InvalidRequest
from qkscope.v1 import spec_pb2

SELECTS = ("top_k", "bottom_k", "random_k", "threshold", "explicit")
MAX_NAME_BYTES = 64

Span = tuple[Optional[int], Optional[int]]
_NO_CONTROL = ("top_k", "threshold", "explicit")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule of a disruption. None leaves a field to the server's default.

    select: "top_k", "bottom_k", "random_k" (with `k`), "threshold" (with
      `lambda_`) or "explicit" (with `entries`, pairs of head and dim).
    tensors: of "q", "k", "v". Default: q and k.
    point: "post_rope" (default) or "pre_rope".
    axis: "per_head" (default) or "per_token".
    replace: "pooled_mean" (default), "per_dim_mean", "zero", "scale" (with
      `factor`).
    kv_grouping: "kv_head" (default) or "query_head".
    phase: "prefill" (default), "decode", "both".
    kv_cache: "persist" (default) or "attention_only".
    stat_span, positions: (begin, end) of prompt positions, end not included.
    layers, heads: default all.
    tower: "text" (default) or "vision".
    """
    select: str
    k: Optional[int] = None
    _: dataclasses.KW_ONLY
    lambda_: Optional[float] = None
    seed: Optional[int] = None
    exclude_top: Optional[int] = None
    entries: Sequence[tuple[int, int]] = ()
    tensors: Sequence[str] = ()
    point: Optional[str] = None
    axis: Optional[str] = None
    replace: Optional[str] = None
    factor: Optional[float] = None
    kv_grouping: Optional[str] = None
    phase: Optional[str] = None
    reselect: Optional[bool] = None
    kv_cache: Optional[str] = None
    stat_span: Optional[Span] = None
    positions: Optional[Span] = None
    layers: Sequence[int] = ()
    heads: Sequence[int] = ()
    tower: Optional[str] = None

    def __post_init__(self) -> None:
        if self.select not in SELECTS:
            raise InvalidRequest(
                f"select: '{self.select}' is not one of {', '.join(SELECTS)}"
                + enums.did_you_mean(self.select, SELECTS))
        if self.select in ("top_k", "bottom_k", "random_k") and self.k is None:
            raise InvalidRequest(
                f"{self.select} needs the number of dims, as in k=1")
        for name in ("seed", "exclude_top"):
            if getattr(self, name) is not None and self.select != "random_k":
                raise InvalidRequest(f"{name}: only random_k has it")
        if self.lambda_ is not None and self.select != "threshold":
            raise InvalidRequest("lambda_: only threshold has it")
        # One value may stand for a list of it: tensors="qk", layers=3.
        for name in ("layers", "heads"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, int)
                               else tuple(int(item) for item in value))
        tensors = self.tensors
        object.__setattr__(self, "tensors", tuple(
            letter.lower() for letter in tensors if letter != "+"))
        object.__setattr__(self, "entries", tuple(
            (int(head), int(dim)) for head, dim in self.entries))

    def to_proto(self) -> spec_pb2.DisruptionRule:
        """The message. InvalidRequest: a field has no such value."""
        try:
            return self._to_proto()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{self.select}: {error}") from None

    def _to_proto(self) -> spec_pb2.DisruptionRule:
        rule = spec_pb2.DisruptionRule()
        _set_select(self, rule)
        for tensor in self.tensors:
            rule.tensors.append(enums.tensor(tensor))
        for name in ("point", "axis", "replace", "kv_grouping", "phase",
                     "kv_cache", "tower"):
            value = getattr(self, name)
            if value is not None:
                setattr(rule, name, enums.number(rule, name, value))
        for name in ("factor", "reselect"):
            if getattr(self, name) is not None:
                setattr(rule, name, getattr(self, name))
        for name in ("stat_span", "positions"):
            span = getattr(self, name)
            if span is not None:
                getattr(rule, name).CopyFrom(spec_pb2.Span(
                    begin=span[0], end=span[1]))
        rule.layers.extend(self.layers)
        rule.heads.extend(self.heads)
        return rule

    @property
    def spec(self) -> str:
        """The rule in the language of qkctl's --arm."""
        if self.select == "explicit":
            text = "explicit:" + "+".join(f"{h}/{d}" for h, d in self.entries)
        elif self.select == "threshold":
            text = "threshold" + ("" if self.lambda_ is None
                                  else f":{_number(self.lambda_)}")
        else:
            text = f"{self.select}:{self.k}"
        for name in _KEYS:
            value = getattr(self, name)
            if value is not None and value != ():
                text += f",{name}={_key_text(name, value)}"
        return text


# The keys that a rule's text may have, in the order in which it is written.
_KEYS = ("tensors", "point", "axis", "replace", "factor", "kv_grouping",
         "phase", "reselect", "kv_cache", "stat_span", "positions", "layers",
         "heads", "tower", "seed", "exclude_top")


def _set_select(rule: Rule, proto: spec_pb2.DisruptionRule) -> None:
    chosen = getattr(proto, rule.select)
    chosen.SetInParent()
    if rule.k is not None and rule.select.endswith("_k"):
        chosen.k = rule.k
    if rule.seed is not None:
        chosen.seed = rule.seed
    if rule.exclude_top is not None:
        chosen.exclude_top = rule.exclude_top
    if rule.lambda_ is not None:
        setattr(chosen, "lambda", rule.lambda_)
    for head, dim in rule.entries:
        chosen.entries.add(head=head, dim=dim)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _ranges(numbers: Sequence[int]) -> str:
    """"0-3+7" for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "+".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _key_text(name: str, value: Any) -> str:
    if name in ("stat_span", "positions"):
        return ":".join("" if end is None else str(end) for end in value)
    if name == "tensors":
        return "+".join(value)
    if name in ("layers", "heads"):
        return _ranges(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _number(value) if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to run the prompt. Names are unique in a request.

    rules: what is changed; none and no preset: nothing is.
    preset: what the paper's published code does, such as
      "rope_with_llm/llama"; it excludes rules.
    model: a loaded variant with the same tokenizer, or None.
    """
    name: str
    rules: Sequence[Rule] = ()
    model: Optional[str] = None
    _: dataclasses.KW_ONLY
    preset_name: str = ""
    preset_seed: Optional[int] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.preset_name and self.rules:
            raise InvalidRequest(
                f"arm '{self.name}': clean and presets cannot be joined with "
                "rules")
        if len(self.name.encode()) > MAX_NAME_BYTES:
            raise InvalidRequest(
                f"arm '{self.name}': its name is longer than {MAX_NAME_BYTES} "
                "characters; set a shorter one with name=")

    @property
    def kind(self) -> str:
        """"clean", "disrupted" or "control"; see kind_of."""
        return kind_of(self.to_proto())

    @classmethod
    def clean(cls, name: str = "clean", model: Optional[str] = None) -> Arm:
        """Nothing is changed."""
        return cls(name, (), model)

    @classmethod
    def _one(cls, rule: Rule, name: Optional[str],
             model: Optional[str]) -> Arm:
        return cls(name or default_name([rule], model), (rule,), model)

    @classmethod
    def top_k(cls, k: int, *, name: Optional[str] = None,
              model: Optional[str] = None, **rule: Any) -> Arm:
        """The k largest dims of each head. `rule`: fields of Rule."""
        return cls._one(Rule("top_k", k, **rule), name, model)

    @classmethod
    def bottom_k(cls, k: int, *, name: Optional[str] = None,
                 model: Optional[str] = None, **rule: Any) -> Arm:
        """The k smallest dims of each head."""
        return cls._one(Rule("bottom_k", k, **rule), name, model)

    @classmethod
    def control(cls, k: int = 1, *, name: str = "control",
                model: Optional[str] = None, **rule: Any) -> Arm:
        """bottom_k under the name "control"."""
        return cls._one(Rule("bottom_k", k, **rule), name, model)

    @classmethod
    def random_k(cls, k: int, seed: int = 0, *, name: Optional[str] = None,
                 model: Optional[str] = None, **rule: Any) -> Arm:
        """k random dims of each head, other than its k largest."""
        return cls._one(Rule("random_k", k, seed=seed or None, **rule), name,
                        model)

    @classmethod
    def threshold(cls, lambda_: float = 5, *, name: Optional[str] = None,
                  model: Optional[str] = None, **rule: Any) -> Arm:
        """All dims above lambda_ times their head's mean."""
        return cls._one(Rule("threshold", lambda_=lambda_, **rule), name, model)

    @classmethod
    def explicit(cls, entries: Iterable[tuple[int, int]], *,
                 name: Optional[str] = None, model: Optional[str] = None,
                 **rule: Any) -> Arm:
        """The given (head, dim) pairs."""
        return cls._one(Rule("explicit", entries=tuple(entries), **rule), name,
                        model)

    @classmethod
    def preset(cls, preset: str, seed: int = 0, *, name: Optional[str] = None,
               model: Optional[str] = None) -> Arm:
        """What the paper's published code does: "rope_with_llm/llama",
        "mistral", "qwen2" or "gemma2" there, each also with "/control"."""
        text = f"preset:{preset}" + (f",seed={seed}" if seed else "")
        if model is not None:
            text += f",model={model}"
        return cls(name or text, (), model, preset_name=preset,
                   preset_seed=seed or None)

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Reads the language of qkctl's --arm. InvalidRequest says what is
        wrong with it."""
        from qkscope.arm_language import parse  # it needs this module
        return parse(text)

    def to_proto(self) -> spec_pb2.Arm:
        arm = spec_pb2.Arm(name=self.name, model=self.model,
                           disruptions=[rule.to_proto() for rule in self.rules])
        if self.preset_name:
            arm.preset.name = self.preset_name
            if self.preset_seed is not None:
                arm.preset.seed = self.preset_seed
        return arm


def default_name(rules: Sequence[Rule], model: Optional[str]) -> str:
    """The name that qkctl gives an arm without one: its spec, with "_" for "+"
    and ";", which names must not contain."""
    text = ";".join(rule.spec for rule in rules) or "clean"
    if model is not None:
        text += f",model={model}"
    return text.replace("+", "_").replace(";", "_")


def is_undisrupted(arm: spec_pb2.Arm) -> bool:
    """Whether the arm changes no values."""
    return not arm.disruptions and not arm.HasField("preset")


def kind_of(arm: spec_pb2.Arm) -> str:
    """"clean": changes nothing. "control": changes what does not matter (the
    smallest or random dims, or a preset's control). "disrupted": all else."""
    if is_undisrupted(arm):
        return "clean"
    if arm.HasField("preset"):
        control = arm.preset.name.endswith("/control")
    else:
        control = all(rule.WhichOneof("select") not in _NO_CONTROL
                      for rule in arm.disruptions)
    return "control" if control else "disrupted"


ArmLike = Union[Arm, str, spec_pb2.Arm]


def arm_proto(arm: ArmLike) -> spec_pb2.Arm:
    """The message of an arm given as Arm, text or message."""
    if isinstance(arm, str):
        arm = Arm.parse(arm)
    return arm if isinstance(arm, spec_pb2.Arm) else arm.to_proto()
