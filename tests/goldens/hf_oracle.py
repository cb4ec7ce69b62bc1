"""Runs transformers models wholly in float64 and records what attention sees.

This is the oracle of all goldens. Nothing here calls qkscope.

Shapes: T tokens, H query heads, G KV heads, D head_dim.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt_neo import modeling_gpt_neo

import hf_attention

RECORDING_ATTENTION = "qkscope_recording"


@contextlib.contextmanager
def float64_everywhere() -> Iterator[None]:
    """Makes transformers' explicit float32 steps run in float64.

    Model code upcasts to `torch.float32` in norms, softmax and RoPE. While this
    is active, these names mean float64, and so does the default type of new
    tensors (dynamic RoPE's base is one), so that a golden has only the float32
    rounding of its weights.
    """
    saved = torch.float32, torch.float, torch.Tensor.float
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved
        torch.set_default_dtype(default)


class _OnlyFloat64(TorchDispatchMode):
    """Refuses every op that makes a narrower floating-point tensor."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                assert tensor.dtype == torch.float64, f"{op}: {tensor.dtype}"
        return result


def _record(module, query, key, value, output, pattern, scaling) -> None:
    """Keeps one call's tensors on `module`.

    query (1, H, T, D); key, value (1, G, keys, D), the cache included; output
    (1, T, H, D); pattern (1, H, T, keys).
    """
    rows = query.shape[2]
    if scaling is not None and scaling != getattr(module, "scaling", scaling):
        # OPT scales Q instead of the scores.
        query = query * (scaling / module.scaling)
    module.recorded = {
        "hook_rot_q": query[0].transpose(0, 1),
        "hook_rot_k": key[0, :, -rows:].transpose(0, 1),
        "hook_v": value[0, :, -rows:].transpose(0, 1),
        "hook_z": output[0],
        "hook_pattern": pattern[0].transpose(0, 1),
    }


def _recording_attention(
    module, query, key, value, attention_mask, scaling=None, **kwargs
):
    """Runs the family's eager attention; records its tensors on `module`."""
    family = sys.modules[type(module).__module__]
    output, pattern = family.eager_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )
    _record(module, query, key, value, output, pattern, scaling)
    return output, pattern


class _RecordingGPTNeoAttention(modeling_gpt_neo.GPTNeoSelfAttention):
    """GPT-Neo's attention is a method, not a function in a table."""

    def _attn(self, query, key, value, attention_mask=None):
        output, pattern = super()._attn(query, key, value, attention_mask)
        _record(
            self,
            query,
            key,
            value,
            output.transpose(1, 2),
            pattern,
            scaling=None,
        )
        return output, pattern


ALL_ATTENTION_FUNCTIONS.register(RECORDING_ATTENTION, _recording_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(
    RECORDING_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["eager"]
)
modeling_gpt_neo.GPT_NEO_ATTENTION_CLASSES[RECORDING_ATTENTION] = (
    _RecordingGPTNeoAttention
)


@dataclasses.dataclass
class PassRecord:
    """One pass: logits (T, vocab) and, by layer, hook name to its tensor.

    A layer without attention has no hooks.
    hook_q, hook_rot_q, hook_z (T, H, D); hook_k, hook_rot_k, hook_v (T, G, D);
    hook_pattern (T, H, keys).
    """

    logits: torch.Tensor
    layers: list[dict[str, torch.Tensor]]


class Recorder:
    """A model whose passes return what every layer's attention saw."""

    def __init__(self, model: transformers.PreTrainedModel):
        self._model = model
        self._num_layers = model.config.get_text_config().num_hidden_layers
        self._attention = hf_attention.attention_by_layer(model)
        self._projected: dict[tuple[int, str], torch.Tensor] = {}
        for index, attention in self._attention.items():
            hf_attention.watch_projections(
                attention, functools.partial(self._keep, index)
            )

    def _keep(self, layer: int, hook: str, output: torch.Tensor) -> None:
        self._projected[layer, hook] = output

    def run(
        self, ids: list[int], cache: transformers.Cache, **inputs
    ) -> PassRecord:
        """Appends `ids` to the sequence in `cache`."""
        with torch.no_grad(), float64_everywhere(), _OnlyFloat64():
            logits = self._model(
                torch.tensor([ids]),
                past_key_values=cache,
                use_cache=True,
                **inputs,
            ).logits[0]
        layers: list[dict[str, torch.Tensor]] = []
        for index in range(self._num_layers):
            hooks = {}
            if index in self._attention:
                hooks |= self._attention[index].recorded
                for name in ("hook_q", "hook_k"):
                    hooks[name] = self._projected[index, name]
            layers.append(hooks)
        assert logits.dtype == torch.float64
        assert all(t.dtype == torch.float64 for h in layers for t in h.values())
        return PassRecord(logits, layers)


def _recompute_constants(model: transformers.PreTrainedModel) -> None:
    """Recomputes in float64 what the load computes rather than reads."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            buffers = [b for b, _ in child.named_buffers(recurse=False)]
            if any("inv_freq" in buffer for buffer in buffers):
                with float64_everywhere():
                    setattr(parent, name, type(child)(config=child.config))
            if hasattr(child, "scalar_embed_scale"):
                child.embed_scale.fill_(child.scalar_embed_scale)


def model_class(config: transformers.PretrainedConfig) -> type:
    """Returns the class that config.json names."""
    return getattr(transformers, config.architectures[0])


def load_float64(
    folder: str, attention: str, gguf_file: str | None = None
) -> transformers.PreTrainedModel:
    """Reads a Hugging Face folder, or a GGUF file in it (dequantised to F32).

    Weights are widened to float64.
    """
    cls = transformers.AutoModelForCausalLM
    options = {}
    if gguf_file is None:
        config = transformers.AutoConfig.from_pretrained(folder)
        cls = model_class(config)
        if hasattr(config, "num_experts"):
            # grouped_mm, the default, does not support float64.
            options["experts_implementation"] = "eager"
    model = cls.from_pretrained(
        folder,
        gguf_file=gguf_file,
        dtype=torch.float32,
        attn_implementation=attention,
        **options,
    ).double()
    _recompute_constants(model)
    return model.eval()
