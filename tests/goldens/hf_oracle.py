"""Runs transformers models wholly in float64 and records what attention sees.

The oracle of all goldens. Nothing here calls qkscope.

Shapes: T tokens, H query heads, G KV heads, D head_dim.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator

import torch
import transformers
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

RECORDING_ATTENTION = "qkscope_recording"


@contextlib.contextmanager
def float64_everywhere() -> Iterator[None]:
    """Makes transformers' explicit float32 steps run in float64.

    Model code upcasts to `torch.float32` in norms, softmax and RoPE. While this
    is active these names mean float64, so that a golden has no float32 rounding
    but the one of its weights.
    """
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved


def _module_of_family(module: torch.nn.Module):
    return sys.modules[type(module).__module__]


def _recording_attention(module, query, key, value, attention_mask, **kwargs):
    """The family's own eager attention; keeps inputs and results on `module`.

    query (1, H, T, D); key, value (1, G, keys, D), the cache included.
    """
    eager = _module_of_family(module).eager_attention_forward
    output, pattern = eager(module, query, key, value, attention_mask, **kwargs)
    rows = query.shape[2]
    module.recorded = {
        "hook_rot_q": query[0].transpose(0, 1),
        "hook_rot_k": key[0, :, -rows:].transpose(0, 1),
        "hook_v": value[0, :, -rows:].transpose(0, 1),
        "hook_z": output[0],
        "hook_pattern": pattern[0].transpose(0, 1),
    }
    return output, pattern


ALL_ATTENTION_FUNCTIONS.register(RECORDING_ATTENTION, _recording_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(
    RECORDING_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["eager"]
)


@dataclasses.dataclass
class PassRecord:
    """One pass: logits (T, vocab) and, by layer, hook name to its tensor.

    hook_q, hook_rot_q, hook_z (T, H, D); hook_k, hook_rot_k, hook_v (T, G, D);
    hook_pattern (T, H, keys).
    """

    logits: torch.Tensor
    layers: list[dict[str, torch.Tensor]]


class Recorder:
    """A model whose passes give back what every layer's attention saw."""

    def __init__(self, model: transformers.PreTrainedModel):
        self._model = model
        self._projected: dict[tuple[int, str], torch.Tensor] = {}
        self._attention = []
        for index, layer in enumerate(model.model.layers):
            attention = layer.self_attn
            self._attention.append(attention)
            for name in ("q", "k"):
                projection = getattr(attention, f"{name}_proj")
                projection.register_forward_hook(
                    self._keep(index, f"hook_{name}", attention.head_dim)
                )

    def _keep(self, layer: int, hook: str, head_dim: int):
        def keep(_module, _inputs, output):
            rows = output.shape[1]
            self._projected[layer, hook] = output[0].view(rows, -1, head_dim)

        return keep

    def run(self, ids: list[int], cache: transformers.Cache) -> PassRecord:
        """Appends `ids` to the sequence in `cache`."""
        with torch.no_grad(), float64_everywhere():
            logits = self._model(
                torch.tensor([ids]), past_key_values=cache, use_cache=True
            ).logits[0]
        layers = []
        for index, attention in enumerate(self._attention):
            hooks = dict(attention.recorded)
            for name in ("hook_q", "hook_k"):
                hooks[name] = self._projected[index, name]
            layers.append(hooks)
        assert logits.dtype == torch.float64
        assert all(t.dtype == torch.float64 for h in layers for t in h.values())
        return PassRecord(logits, layers)


def load_float64(
    folder: str, attention: str, gguf_file: str | None = None
) -> transformers.PreTrainedModel:
    """Reads a Hugging Face folder, or a GGUF file in it (dequantised to F32).

    Weights are widened to float64.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf_file,
        dtype=torch.float32,
        attn_implementation=attention,
    ).double()
    # RoPE's frequencies are computed, not read: once more, in float64.
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if hasattr(child, "inv_freq"):
                with float64_everywhere():
                    setattr(parent, name, type(child)(config=model.config))
    return model.eval()
