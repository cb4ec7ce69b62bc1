"""The Driver of TransformerLens's bridge whose forward passes a server runs.

Imports transformer_lens; qkscope.lens.boot is the way in.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.driver_protocol import ForwardResult
from transformer_lens.model_bridge.remote_bridge import RemoteBridge

from qkscope.arms import Arm, ArmLike, arm_proto, is_undisrupted
from qkscope.errors import InvalidRequest
from qkscope.evals.text_model import choose_model
from qkscope.lab import Lab, connect
from qkscope.lens import names
from qkscope.lens.interventions import arm_of
from qkscope.lens.tokenizer import prepare_tokenizer
from qkscope.run import ArmResult
from qkscope.spec import Capture, LogitsSpec
from qkscope.v1 import analysis_pb2, spec_pb2

_CONCURRENCY = 4  # Sequences of one batch that run at a time.


class QkscopeDriver:
    """A Driver (transformer_lens.model_bridge.driver_protocol): captures come
    from the server; there are no weights and no gradients here."""

    _supported_features: frozenset[str] = frozenset()

    def __init__(self, lab: Lab, info: analysis_pb2.ModelInfo, tokenizer: Any,
                 arm: Optional[ArmLike], logits: str,
                 owns_lab: bool = True) -> None:
        if logits not in ("all", "last"):
            raise InvalidRequest(f"logits: '{logits}' is not one of all, last")
        self.lab = lab
        self.model: str = info.name
        self.architecture: str = info.architecture
        self.bridge_config = bridge_config(info)
        self.tokenizer = tokenizer
        self._owns_lab = owns_lab
        self._arm = arm_proto(arm if arm is not None else Arm.clean())
        self._head_dims = {i: layer.head_dim
                           for i, layer in enumerate(info.layers)
                           if layer.kind == "attention"}
        self._listed = min(info.vocab_size,
                           lab.server_info().limits.max_list_entries)
        if self._listed < info.vocab_size:
            warnings.warn(
                f"the server lists {self._listed} of {info.vocab_size} logits "
                "of a position; the others, the least likely, are -inf",
                stacklevel=4)
        self._all_logits = logits == "all"
        self.provides_sequence_logits = (self._all_logits and
                                         self._listed == info.vocab_size)
        self.supported_hook_points = names.served(
            self._head_dims, any(layer.HasField("rope")
                                 for layer in info.layers))
        self.non_fireable_hook_points = (names.not_served(info.num_layers)
                                         - self.supported_hook_points)

    def supports(self, feature: str) -> bool:
        return feature in self._supported_features

    def close(self) -> None:
        if self._owns_lab:
            self.lab.close()

    def forward(self, input_ids: Any = None, *, capture: tuple[str, ...] = (),
                intervene: Optional[Mapping[str, Any]] = None,
                max_new_tokens: int = 1, return_logits: bool = True,
                attention_mask: Any = None, arm: Optional[ArmLike] = None,
                **kwargs: Any) -> ForwardResult:
        """Runs each sequence of the batch through one arm. Captures of a
        disrupted arm are what attention reads, after the disruption.
        QkscopeError, NotImplementedError: what the server cannot do."""
        if kwargs:
            raise NotImplementedError(
                f"a qkscope server's forward pass has no '{min(kwargs)}'")
        if max_new_tokens != 1:
            raise NotImplementedError(
                "the bridge runs single passes; qkscope.Lab.generate generates")
        if arm is not None and intervene:
            raise NotImplementedError("give either an arm or interventions")
        batch = _batch(input_ids)
        _check_mask(attention_mask, batch)
        if intervene:
            chosen = arm_of(intervene, self._head_dims).to_proto()
        else:
            chosen = self._arm if arm is None else arm_proto(arm)
        wanted = {name: place for name in capture
                  if (place := names.resolve(name)) is not None}
        passes = [found.value if found.error is None else _fail(found.error)
                  for found in self.lab.map(
                      batch, lambda lab, ids: self._run(
                          lab, ids, chosen, list(wanted.values()),
                          return_logits),
                      concurrency=_CONCURRENCY)]
        captured = {name: np.concatenate([self._tensor(result, *place)
                                          for result in passes])
                    for name, place in wanted.items()}
        logits = np.concatenate([self._logits(result, len(batch[0]))
                                 for result in passes]
                                ) if return_logits else None
        return ForwardResult(logits=logits, captured=captured,
                             raw_output=passes)

    def _run(self, lab: Lab, ids: list[int], arm: spec_pb2.Arm,
             wanted: list[tuple[int, str]], logits: bool) -> ArmResult:
        points = sorted({point for _, point in wanted})
        capture = Capture(
            layers=sorted({layer for layer, _ in wanted}), points=points,
            form="raw", stage="before" if is_undisrupted(arm) else "after",
            # The pattern is given at chosen positions only.
            positions=range(len(ids)) if "hook_pattern" in points else None)
        positions = (range(len(ids)) if self._all_logits
                     else [len(ids) - 1])
        run = lab.analyze(
            self.model, ids, arms=[arm], compare=False,
            capture=capture if wanted else Capture(off=True),
            logits=LogitsSpec(self._listed, positions) if logits else None)
        return run[0]

    def _tensor(self, result: ArmResult, layer: int,
                point: str) -> npt.NDArray[Any]:
        """One sequence's tensor in TransformerLens's shape, to be kept."""
        values = result.point(point).layer(layer)
        if point == "hook_pattern":  # (heads, queries, keys)
            values = values.transpose(1, 0, 2)
        return np.array(values[np.newaxis], order="C")

    def _logits(self, result: ArmResult, tokens: int) -> npt.NDArray[Any]:
        out = np.full((1, tokens, self.bridge_config.d_vocab), -np.inf,
                      np.float32)
        for found in result.logits:
            out[0, found.position, found.ids] = found.logprobs
        return out


def _fail(error: BaseException) -> ArmResult:
    raise error


def _batch(input_ids: Any) -> list[list[int]]:
    """Sequences of one length, of a tensor or nested lists."""
    if input_ids is None:
        raise ValueError("input_ids: give token ids")
    if hasattr(input_ids, "detach"):
        input_ids = input_ids.detach().cpu()
    array = np.asarray(input_ids)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ValueError("input_ids: need whole numbers of shape (batch, "
                         f"positions), got {array.dtype} of {array.shape}")
    return [list(map(int, row)) for row in array]


def _check_mask(mask: Any, batch: list[list[int]]) -> None:
    if mask is not None and not np.asarray(mask).all():
        raise NotImplementedError(
            "a qkscope server takes no padding: pass sequences of one length")


def bridge_config(info: analysis_pb2.ModelInfo) -> TransformerBridgeConfig:
    """What the server says of a model. Where layers differ, the first one with
    attention counts."""
    layers = [layer for layer in info.layers if layer.kind == "attention"]
    if not layers:
        raise InvalidRequest(f"model '{info.name}' has no attention")
    first = layers[0]
    rope = info.rope[first.rope] if first.HasField("rope") else None
    return TransformerBridgeConfig(
        d_model=info.hidden_size, d_head=first.head_dim,
        n_layers=info.num_layers, n_ctx=info.context_length,
        n_heads=first.num_heads, d_vocab=info.vocab_size,
        n_key_value_heads=first.num_kv_heads, model_name=info.name,
        architecture=info.architecture,
        positional_embedding_type="rotary" if rope else "standard",
        rotary_dim=rope.rotary_dims if rope else None,
        rotary_base=rope.theta if rope else 10000)


class QkscopeBridge(RemoteBridge):  # type: ignore[misc]
    """A RemoteBridge that is called like a model, as TransformerBridge is."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


def boot_bridge(model: Optional[str], server: Union[str, Lab, None],
                tokenizer: Any, arm: Optional[ArmLike], logits: str,
                connection: dict[str, Any]) -> QkscopeBridge:
    """qkscope.lens.boot."""
    owns = not isinstance(server, Lab)
    lab = server if isinstance(server, Lab) else connect(server, **connection)
    try:
        info = choose_model(lab, model)
        driver = QkscopeDriver(lab, info, None, arm, logits, owns)
        # The bridge asks its adapter for these alone.
        adapter = types.SimpleNamespace(
            cfg=driver.bridge_config, component_mapping={},
            supports_hf_output_attentions=False)
        driver.tokenizer = prepare_tokenizer(tokenizer, lab, info, adapter.cfg)
        return QkscopeBridge(adapter=adapter, tokenizer=driver.tokenizer,
                             driver=driver)
    except BaseException:
        if owns:
            lab.close()
        raise
