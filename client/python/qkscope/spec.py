"""What a request asks: the prompt, what is captured, and the other parts of an
AnalyzeRequest, as plain data. All are pure; nothing here makes a call.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union

from qkscope import enums
from qkscope.arms import ArmLike, arm_proto, is_undisrupted
from qkscope.errors import BadFile, InvalidRequest, QkscopeError
from qkscope.v1 import analysis_pb2, spec_pb2

ImageLike = Union[bytes, "os.PathLike[str]", str, spec_pb2.Image]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt: exactly one of text, token_ids and chat.

    text: str, or bytes of UTF-8.
    token_ids: used as given.
    chat: messages {"role": ..., "content": ...}, turned into text by the server
      with the format `chat_format` (ServerInfo.chat_formats).
    add_special_tokens: adds BOS and the like. None: the tokenizer's own setting.
    parse_special: text that spells a special token becomes that token.
    images: PNG or JPEG files (paths) or their bytes, for models with a vision
      tower, in the order of their placeholders.
    """
    text: Union[str, bytes, None] = None
    _: dataclasses.KW_ONLY
    token_ids: Optional[Sequence[int]] = None
    chat: Optional[Sequence[Mapping[str, Any]]] = None
    chat_format: str = ""
    add_special_tokens: Optional[bool] = None
    parse_special: Optional[bool] = None
    images: Sequence[ImageLike] = ()

    def to_proto(self) -> spec_pb2.Input:
        """The message. InvalidRequest: not exactly one source; BadFile: an
        image cannot be read."""
        given = [name for name in ("text", "token_ids", "chat")
                 if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidRequest(
                "prompt: give exactly one of text, token_ids and chat, got "
                + (" and ".join(given) or "none"))
        source = spec_pb2.Input()
        for name in ("add_special_tokens", "parse_special"):
            if getattr(self, name) is not None:
                setattr(source, name, getattr(self, name))
        if self.text is not None:
            source.text = _utf8(self.text)
        elif self.token_ids is not None:
            source.token_ids.SetInParent()
            source.token_ids.ids.extend(map(int, self.token_ids))
        else:
            source.chat.format = self.chat_format
            for message in self.chat or ():
                source.chat.messages.add(role=message["role"],
                                         content=_utf8(message["content"]))
        for image in self.images:
            source.images.append(_image(image))
        return source


PromptLike = Union[str, bytes, Sequence[int], Prompt, spec_pb2.Input]


def _utf8(text: Union[str, bytes]) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "input.text: holds half of a surrogate pair, which is no Unicode "
            "text", field="input.text") from None


def _image(image: ImageLike) -> spec_pb2.Image:
    if isinstance(image, spec_pb2.Image):
        return image
    if isinstance(image, bytes):
        return spec_pb2.Image(encoded=image)
    try:
        return spec_pb2.Image(encoded=pathlib.Path(image).read_bytes())
    except OSError as error:
        raise BadFile(f"cannot read {os.fspath(image)}: {error.strerror}"
                      ) from None


def input_proto(prompt: PromptLike) -> spec_pb2.Input:
    """The message of a prompt in any of its forms."""
    if isinstance(prompt, spec_pb2.Input):
        return prompt
    if isinstance(prompt, (str, bytes)):
        prompt = Prompt(prompt)
    try:
        if not isinstance(prompt, Prompt):
            prompt = Prompt(token_ids=[int(token) for token in prompt])
        return prompt.to_proto()
    except QkscopeError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidRequest(
            f"prompt: got {type(prompt).__name__} ({error}); give text, token "
            "ids, or a Prompt", field="input") from None


def _ints(numbers: Union[int, Iterable[int], None]) -> list[int]:
    if numbers is None:
        return []
    if isinstance(numbers, int):
        return [numbers]
    return [int(number) for number in numbers]


@dataclasses.dataclass(frozen=True)
class Capture:
    """What is captured. None and empty: the server's default.

    layers, heads (query heads), positions (of the prompt): default all.
    points: "hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z",
      "hook_pattern". Default: hook_rot_q, hook_rot_k and hook_v.
    form: "norm_over_tokens" (default), (heads, head_dim); "norm_per_token",
      (positions, heads); "raw", (positions, heads, head_dim).
    phase: "prefill" (default), "decode", "both".
    stage: "before" (default) or "after" the disruption, or "before_and_after".
    raw_dtype: "f32" (default), "f16", "bf16".
    raw_sha256: also hashes raw values.
    off: captures nothing.
    vision_layers: layers of the vision tower. Default: none.
    """
    layers: Union[int, Iterable[int], None] = None
    heads: Union[int, Iterable[int], None] = None
    positions: Union[int, Iterable[int], None] = None
    points: Union[str, Iterable[str], None] = None
    form: Optional[str] = None
    phase: Optional[str] = None
    stage: Optional[str] = None
    raw_dtype: Optional[str] = None
    raw_sha256: bool = False
    off: bool = False
    vision_layers: Union[int, Iterable[int], None] = ()

    def to_proto(self) -> spec_pb2.Capture:
        capture = spec_pb2.Capture(
            layers=_ints(self.layers), heads=_ints(self.heads),
            positions=_ints(self.positions),
            vision_layers=_ints(self.vision_layers))
        points = [self.points] if isinstance(self.points, str) else self.points
        capture.points.extend(enums.number(capture, "points", point)
                              for point in points or ())
        for name in ("form", "phase", "stage", "raw_dtype"):
            value = getattr(self, name)
            if value is not None:
                setattr(capture, name, enums.number(capture, name, value))
        for name in ("raw_sha256", "off"):
            if getattr(self, name):
                setattr(capture, name, True)
        return capture


@dataclasses.dataclass(frozen=True)
class StatisticsSpec:
    """lambda_: an entry is massive above this many times its head's mean
    (default 5). top_n: how many are listed per layer and point (default 8)."""
    lambda_: Optional[float] = None
    top_n: Optional[int] = None

    def to_proto(self) -> spec_pb2.StatisticsSpec:
        spec = spec_pb2.StatisticsSpec(top_n=self.top_n)
        if self.lambda_ is not None:
            setattr(spec, "lambda", self.lambda_)
        return spec


@dataclasses.dataclass(frozen=True)
class LogitsSpec:
    """top_n: how many most likely tokens (default 10). positions: of the
    prompt (default: the last)."""
    top_n: Optional[int] = None
    positions: Sequence[int] = ()

    def to_proto(self) -> spec_pb2.LogitsSpec:
        return spec_pb2.LogitsSpec(top_n=self.top_n,
                                   positions=_ints(self.positions))


@dataclasses.dataclass(frozen=True)
class GenerateSpec:
    """How tokens are generated. temperature 0 is greedy; stop strings and stop
    tokens end the text."""
    max_new_tokens: int = 64
    temperature: float = 0
    top_p: float = 1
    top_k: int = 0
    seed: int = 0
    stop: Union[str, Sequence[str]] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False

    def to_proto(self) -> spec_pb2.GenerateSpec:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        spec = spec_pb2.GenerateSpec(
            max_new_tokens=self.max_new_tokens, stop_strings=stop,
            stop_token_ids=_ints(self.stop_token_ids))
        if self.ignore_eos:
            spec.ignore_eos = True
        spec.sampling.SetInParent()
        for name, default in (("temperature", 0), ("top_p", 1), ("top_k", 0),
                              ("seed", 0)):
            if getattr(self, name) != default:
                setattr(spec.sampling, name, getattr(self, name))
        return spec


def _part(value: Any, kind: Any, first: str) -> Any:
    """The message of a part given as its class, a mapping, or the value of its
    first field."""
    try:
        if isinstance(value, Mapping):
            value = kind(**value)
        elif not hasattr(value, "to_proto") and not hasattr(value,
                                                            "DESCRIPTOR"):
            value = kind(**{first: value})
        return value.to_proto() if hasattr(value, "to_proto") else value
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{kind.__name__}: {error}") from None


CompareLike = Union[str, bool, None]


def _compare(compare: CompareLike, request: analysis_pb2.AnalyzeRequest) -> None:
    """Sets the baseline: the one that is named, or the first undisrupted arm,
    or the first arm. False: nothing is compared."""
    if compare is False:
        return
    if isinstance(compare, str):
        request.compare.baseline = compare
        return
    arms = list(request.arms)
    undisrupted = [arm for arm in arms if is_undisrupted(arm)]
    request.compare.baseline = (undisrupted or arms)[0].name


def analyze_request(
        model: str, prompt: Optional[PromptLike], *,
        arms: Optional[Iterable[ArmLike]] = None,
        capture: Union[Capture, Mapping[str, Any], spec_pb2.Capture,
                       None] = None,
        statistics: Union[StatisticsSpec, Mapping[str, Any], float,
                          None] = None,
        compare: CompareLike = None,
        logits: Union[LogitsSpec, Mapping[str, Any], int, None] = None,
        generate: Union[GenerateSpec, Mapping[str, Any], int, None] = None,
        images: Optional[Iterable[ImageLike]] = None,
        priority: Optional[str] = None, resumable: bool = False,
        detach: bool = False, client_tag: str = ""
) -> analysis_pb2.AnalyzeRequest:
    """The request of Analyze. `prompt` None: a spec of AnalyzeMany.

    The server is asked to refuse fields that it does not know, so that nothing
    is passed over in silence (VersionMismatch).
    """
    request = analysis_pb2.AnalyzeRequest(model=model, client_tag=client_tag,
                                          strict=True)
    if prompt is not None:
        request.input.CopyFrom(input_proto(prompt))
    for image in images or ():
        request.input.images.append(_image(image))
    if isinstance(arms, (str, spec_pb2.Arm)) or hasattr(arms, "to_proto"):
        arms = [arms]  # type: ignore[list-item]
    request.arms.extend(arm_proto(arm) for arm in arms or ())
    if not request.arms:
        request.arms.add(name="clean")
    if capture is not None:
        request.capture.CopyFrom(_part(capture, Capture, "points"))
    if statistics is not None:
        request.statistics.CopyFrom(
            _part(statistics, StatisticsSpec, "lambda_"))
    if logits is not None:
        request.logits.CopyFrom(_part(logits, LogitsSpec, "top_n"))
    if generate is not None:
        request.generate.CopyFrom(
            _part(generate, GenerateSpec, "max_new_tokens"))
    if priority is not None:
        request.priority = enums.number(request, "priority", priority)
    if resumable:
        request.resumable = True
    if detach:
        request.detach = True
    _compare(compare, request)
    return request


def score_request(model: str,
                  pairs: Iterable[tuple[PromptLike, PromptLike]], *,
                  arm: Optional[ArmLike] = None, totals_only: bool = False,
                  priority: Optional[str] = None) -> analysis_pb2.ScoreRequest:
    """The request of Score, strict as that of Analyze."""
    request = analysis_pb2.ScoreRequest(model=model, strict=True)
    for context, continuation in pairs:
        request.pairs.add(context=input_proto(context),
                          continuation=input_proto(continuation))
    if arm is not None:
        request.arm.CopyFrom(arm_proto(arm))
    if totals_only:
        request.totals_only = True
    if priority is not None:
        request.priority = enums.number(request, "priority", priority)
    return request


def generate_request(model: str, prompt: PromptLike, spec: GenerateSpec, *,
                     arm: Optional[ArmLike] = None,
                     priority: Optional[str] = None
                     ) -> analysis_pb2.GenerateRequest:
    """The request of Generate, strict as that of Analyze."""
    request = analysis_pb2.GenerateRequest(
        model=model, input=input_proto(prompt), strict=True,
        generate=_part(spec, GenerateSpec, "max_new_tokens"))
    if arm is not None:
        request.arm.CopyFrom(arm_proto(arm))
    if priority is not None:
        request.priority = enums.number(request, "priority", priority)
    return request
