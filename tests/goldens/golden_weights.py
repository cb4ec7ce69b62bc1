"""Random weights for the tiny models, with massive values in Q and K.

The embeddings share a component, so that Q and K have means other than 0; two
dims of each head, in the low-frequency half of the RoPE pairs, are scaled up,
the same in all heads, as the paper found (section 3).
"""

import math

import torch
from torch import nn

from transformers.pytorch_utils import Conv1D


def _gains(head_dim: int, rotary_dims: int) -> torch.Tensor:
    """Returns the factor of each dim of a head: (head_dim,)."""
    gains = torch.ones(head_dim)
    gains[rotary_dims // 2 - 1] = 4.0
    gains[head_dim - 2] = 2.5
    return gains


class _Filler:
    def __init__(self, model: nn.Module, generator: torch.Generator):
        self._generator = generator
        self._modules = dict(model.named_modules())
        self._type = model.config.model_type
        config = model.config.get_text_config()
        self._tied = model.config.tie_word_embeddings
        heads = config.num_attention_heads
        self._heads = heads
        self._head_dim = (
            getattr(config, "head_dim", None) or config.hidden_size // heads
        )
        self._kv_heads = getattr(config, "num_key_value_heads", None) or heads
        rope = getattr(config, "rope_parameters", None) or {}
        rotary = int(self._head_dim * rope.get("partial_rotary_factor", 1.0))
        self._head_gains = _gains(self._head_dim, rotary)
        self._qk_scale = 0.6
        if self._type == "gpt_neo":  # It does not divide by sqrt(head_dim).
            self._qk_scale *= self._head_dim**-0.25
        vision = getattr(model.config, "vision_config", None)
        if hasattr(vision, "embed_dim"):  # Qwen2-VL's.
            vision_dim = vision.embed_dim // vision.num_heads
            self._vision_gains = _gains(vision_dim, vision_dim)
            self._vision_heads = vision.num_heads

    def _normal(self, shape, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator) * scale

    def _rows(self, module: str, scale: float) -> torch.Tensor | None:
        """Returns the factors of a projection's rows: (rows,).

        Rows of Q and K have `scale` and the gains, rows of V have 1. None: the
        module is not an attention projection.
        """
        head = self._head_gains * scale
        ones = torch.ones_like(head)
        heads, kv_heads = self._heads, self._kv_heads
        if module == "q_proj":
            return head.repeat(heads)
        if module == "k_proj":
            return head.repeat(kv_heads)
        if module == "qkv_proj":
            parts = [head.repeat(heads + kv_heads), ones.repeat(kv_heads)]
            return torch.cat(parts)
        if module == "c_attn":
            return torch.cat([head.repeat(2 * heads), ones.repeat(heads)])
        if module == "query_key_value":
            return torch.cat([head, head, ones]).repeat(heads)
        if module == "qkv":
            head, heads = self._vision_gains * scale, self._vision_heads
            ones = torch.ones_like(head)
            return torch.cat([head.repeat(2 * heads), ones.repeat(heads)])
        return None

    def _norm(self, name: str, shape: torch.Size) -> torch.Tensor:
        if name.endswith("bias"):
            return self._normal(shape, 0.2)
        value = 1.0 + self._normal(shape, 0.2)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            # The values are small: a softmax that picks one key leaves bf16
            # nothing to check.
            value *= 0.25 * self._head_gains
        # Gemma's norms multiply by 1 + weight.
        return value - 1.0 if self._type.startswith("gemma") else value

    def _embedding(self, shape: torch.Size) -> torch.Tensor:
        value = self._normal(shape, 0.7)
        value += self._normal(shape[1:], 0.7)
        value *= 0.5 if self._tied else 1.0
        # Gemma multiplies it by sqrt(hidden_size), which would drown the rest.
        return value * (0.4 if self._type.startswith("gemma") else 1.0)

    def _projection(self, name: str, shape: torch.Size) -> torch.Tensor:
        path, _, kind = name.rpartition(".")
        # Gemma 3's tower does not run.
        module = "" if "vision_tower" in path else path.rpartition(".")[2]
        if kind == "bias":
            rows = self._rows(module, 1.0)
            value = self._normal(shape, 0.3)
            return value if rows is None else value * rows
        transposed = isinstance(self._modules.get(path), Conv1D)
        inputs = shape[0] if transposed else math.prod(shape[1:])
        if "experts." in name:  # (experts, outputs, inputs)
            inputs = shape[2]
        value = self._normal(shape, inputs**-0.5)
        if module == "router":  # So that few choices of experts are close.
            value *= 2.0
        rows = self._rows(module, self._qk_scale)
        if rows is not None:
            value *= rows if transposed else rows[:, None]
        return value

    def _state_space(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Makes Mamba's own parameters, near those of a trained model."""
        if name.endswith("A_log"):
            states = torch.arange(1, weight.shape[1] + 1).log()
            return states + self._normal(weight.shape, 0.2)
        if name.endswith("dt_proj.bias"):
            return self._normal(weight.shape, 0.7) - 1.5
        return 1.0 + self._normal(weight.shape, 0.2)  # D

    def value(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        if name.endswith(("A_log", "dt_proj.bias", ".D")):
            return self._state_space(name, weight)
        if "norm" in name or ".ln_" in name:
            return self._norm(name, weight.shape)
        if name.endswith(("embed_positions.weight", "wpe.weight")):
            return self._normal(weight.shape, 0.4)
        if name.endswith(
            ("embed_tokens.weight", "wte.weight", "embed_in.weight")
        ):
            return self._embedding(weight.shape)
        if name.endswith("lm_head.weight"):
            return self._normal(weight.shape, 0.4)
        return self._projection(name, weight.shape)


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Sets every parameter, and tied ones only once."""
    filler = _Filler(model, generator)
    for name, weight in model.named_parameters():
        weight.data = filler.value(name, weight)
