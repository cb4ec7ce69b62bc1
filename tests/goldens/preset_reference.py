"""The four published disruptions and their controls, as plain code.

The code follows the description of the code that accompanies arXiv:2502.01563,
not qkscope's rules: K is really expanded to query heads where the published
code does so. It checks what the presets `rope_with_llm/*` expand to.

    family   chosen dims         K heads     writes       cached K afterwards
    llama    top 1 per head      KV heads    pooled mean  disrupted
    qwen2    top 3 per head      expanded    pooled mean  clean
    mistral  top 1 per head      expanded    its mean     clean
    gemma2   top 22 per token    all at once 0            disrupted in global
                                                          layers, else clean
    Controls: llama, qwen2: the smallest norms, pooled mean. mistral: one random
    dim but the top one, for each expanded head. gemma2: the 22 smallest, one
    mean per token over heads and dims.

Only Q and K, after RoPE, in every layer, in passes of more than one token.
Shapes: T rows, H query heads, G KV heads, D head_dim.
"""

import types

import torch
import transformers
from transformers.models.llama import modeling_llama

import hf_oracle
import philox


def _replace_by_pooled_mean(x: torch.Tensor, k: int, largest: bool) -> None:
    """Changes each head of x (heads, T, D) in place."""
    for head in x:
        dims = torch.topk(head.norm(dim=0), k, largest=largest).indices
        head[:, dims] = head[:, dims].mean(dim=0).mean()


def _replace_random(
    x: torch.Tensor, seed: int, layer: int, tensor: int
) -> None:
    """Replaces a dim other than the top one in each head of x (heads, T, D)."""
    for index, head in enumerate(x):
        top = head.norm(dim=0).argmax().item()
        others = [d for d in range(head.shape[1]) if d != top]
        words = philox.words(seed, 1, layer, tensor, index, 0)
        dim = others[philox.uniform(words, len(others))]
        head[:, dim] = head[:, dim].mean()


def _gemma2(x: torch.Tensor, control: bool) -> None:
    """Replaces 22 dims per token of x (heads, T, D), in place in all heads."""
    for t in range(x.shape[1]):
        norms = x[:, t].norm(dim=0)
        dims = torch.topk(norms, 22, largest=not control).indices
        x[:, t, dims] = x[:, t, dims].mean() if control else 0.0


def _disrupt(
    family: str,
    control: bool,
    seed: int,
    layer: int,
    q: torch.Tensor,
    k: torch.Tensor,
    group: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns Q (H, T, D), K for attention (H, T, D), K to cache (G, T, D).

    q, k: after RoPE, (H, T, D) and (G, T, D).
    """
    q, k = q.clone(), k.clone()
    clean = k.clone()
    if family == "llama":
        _replace_by_pooled_mean(q, 1, largest=not control)
        _replace_by_pooled_mean(k, 1, largest=not control)
        return q, k.repeat_interleave(group, dim=0), k
    if family == "gemma2":  # Its global layers; Llama has no sliding ones.
        _gemma2(q, control)
        _gemma2(k, control)
        return q, k.repeat_interleave(group, dim=0), k
    expanded = k.repeat_interleave(group, dim=0)
    if family == "qwen2":
        _replace_by_pooled_mean(q, 3, largest=not control)
        _replace_by_pooled_mean(expanded, 3, largest=not control)
    elif control:
        assert family == "mistral"
        _replace_random(q, seed, layer, 0)
        _replace_random(expanded, seed, layer, 1)
    else:
        assert family == "mistral"
        _replace_by_pooled_mean(q, 1, largest=True)
        _replace_by_pooled_mean(expanded, 1, largest=True)
    return q, expanded, clean


def _attention_forward(
    self, hidden_states, position_embeddings, attention_mask=None, **kwargs
):
    del attention_mask, kwargs
    rows = hidden_states.shape[1]
    shape = (1, rows, -1, self.head_dim)
    q = self.q_proj(hidden_states).view(shape).transpose(1, 2)
    k = self.k_proj(hidden_states).view(shape).transpose(1, 2)
    v = self.v_proj(hidden_states).view(shape).transpose(1, 2)[0]
    q, k = modeling_llama.apply_rotary_pos_emb(q, k, *position_embeddings)
    q, k = q[0], k[0]
    group = q.shape[0] // k.shape[0]
    if rows > 1:
        q, expanded, k = _disrupt(*self.preset, self.layer_idx, q, k, group)
    else:
        expanded = k.repeat_interleave(group, dim=0)
    past_k, past_v = self.past or (k[:, :0], v[:, :0])
    keys = torch.cat([past_k.repeat_interleave(group, dim=0), expanded], dim=1)
    self.past = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
    values = self.past[1].repeat_interleave(group, dim=0)
    scores = q @ keys.transpose(1, 2) * self.scaling
    hidden = torch.ones(rows, keys.shape[1], dtype=torch.bool)
    hidden = hidden.triu(keys.shape[1] - rows + 1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    z = (weights @ values).transpose(0, 1).reshape(1, rows, -1)
    return self.o_proj(z), None


class PresetLlama:
    """A float64 Llama model, every layer global, under one preset."""

    def __init__(self, model: transformers.LlamaForCausalLM):
        self._model = model
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.forward = types.MethodType(_attention_forward, attention)

    def run(
        self, name: str, seed: int, ids: list[int], decode_ids: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns prefill logits (T, vocab), decode logits (steps, vocab)."""
        assert len(ids) > 1
        family, _, control = name.removeprefix("rope_with_llm/").partition("/")
        for layer in self._model.model.layers:
            layer.self_attn.preset = (family, control == "control", seed)
            layer.self_attn.past = None
        prefill = self._pass(ids, 0)
        decode = [
            self._pass([token], len(ids) + step)
            for step, token in enumerate(decode_ids)
        ]
        return prefill, torch.cat(decode)

    def _pass(self, ids: list[int], start: int) -> torch.Tensor:
        positions = torch.arange(start, start + len(ids))
        with torch.no_grad(), hf_oracle.float64_everywhere():
            return self._model(
                torch.tensor([ids]),
                position_ids=positions[None],
                use_cache=False,
            ).logits[0]
