"""Disruption rules in float64, patched into transformers' Llama attention.

The code follows the definition of DisruptionRule in
proto/qkscope/v1/spec.proto. Rules are dictionaries; `RULE_DEFAULTS` gives the
fields, their spelling and their defaults.

Shapes: T rows of a pass, H query heads, G KV heads, D head_dim. "Heads of a
view" are H for Q, and for K and V G, or H under query_head.
"""

import dataclasses
import types

import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama

import hf_oracle
import philox

TENSOR_INDEX = {"q": 0, "k": 1, "v": 2}
RULE_DEFAULTS = {
    "tensors": ["q", "k"],
    "point": "post_rope",  # pre_rope
    "select": None,  # {"top_k": {"k": 1}}, bottom_k, random_k, threshold,
    # {"explicit": {"entries": [{"head": 0, "dim": 1}]}}
    "axis": "per_head",  # per_token
    "replace": "pooled_mean",  # per_dim_mean, zero, scale
    "factor": 1.0,
    "kv_grouping": "kv_head",  # query_head
    "phase": "prefill",  # decode, both
    "reselect": False,
    "kv_cache": "persist",  # attention_only
    "stat_span": None,  # [begin, end)
    "positions": None,  # [begin, end)
    "layers": None,
    "heads": None,
}


@dataclasses.dataclass(frozen=True)
class Pass:
    """The rows of one pass: prompt rows from 0, or one decode row."""

    start: int
    rows: int
    step: int | None  # None in prefill.

    @property
    def philox_step(self) -> int:
        return 0 if self.step is None else 1 + self.step


@dataclasses.dataclass
class Chosen:
    """Dims (ascending) and the values written there.

    values: one for pooled_mean and zero, one per dim for per_dim_mean, none for
    scale. norms: (D,), the norms on which the choice is based.
    """

    dims: list[int]
    values: list[float]
    norms: np.ndarray


@dataclasses.dataclass
class Edit:
    """The new values where mask is set; both are (T, heads of the view, D)."""

    mask: np.ndarray
    values: np.ndarray


def _ranked(norms: np.ndarray, largest_first: bool) -> list[int]:
    """Ranks dims by norm; ties go to the lowest dim, non-finite ones last."""
    sign = -1.0 if largest_first else 1.0
    return sorted(
        range(len(norms)),
        key=lambda d: (
            (0, sign * norms[d], d) if np.isfinite(norms[d]) else (1, 0.0, d)
        ),
    )


class Selector:
    """Chooses dims, and records its narrowest decision.

    narrowest: the smallest relative distance between the last norm taken and
    the first one not taken. If it is near float32's rounding, a correct float32
    engine may choose otherwise.
    """

    def __init__(self):
        self.narrowest = np.inf

    def _head_of_ranking(
        self, norms: np.ndarray, largest_first: bool, count: int
    ) -> list[int]:
        ranking = _ranked(norms, largest_first)
        if 0 < count < len(ranking):
            last, first = norms[ranking[count - 1]], norms[ranking[count]]
            scale = max(abs(last), abs(first))
            if np.isfinite(scale) and scale > 0:
                gap = abs(last - first) / scale
                self.narrowest = min(self.narrowest, gap)
        return ranking[:count]

    def choose(
        self,
        select: dict,
        norms: np.ndarray,
        place: tuple[int, int, int, int],
        head: int | None,
    ) -> list[int]:
        """Returns the chosen dims, ascending, for norms (D,).

        place: (layer, tensor, head or position, step) for random choices. head:
        for explicit entries.
        """
        ((kind, options),) = select.items()
        if kind in ("top_k", "bottom_k"):
            dims = self._head_of_ranking(norms, kind == "top_k", options["k"])
        elif kind == "random_k":
            k = options["k"]
            excluded = self._head_of_ranking(
                norms, True, options.get("exclude_top", k)
            )
            allowed = [d for d in range(len(norms)) if d not in excluded]
            layer, tensor, index, step = place
            source = philox.words(
                options.get("seed", 0),
                philox.PURPOSE_RANDOM_K,
                layer,
                tensor,
                index,
                step,
            )
            dims = philox.choose(source, allowed, k)
        elif kind == "threshold":
            finite = norms[np.isfinite(norms)]
            limit = options.get("lambda", 5.0) * (
                finite.mean() if finite.size else 0.0
            )
            dims = [d for d, norm in enumerate(norms) if norm > limit]
            if limit > 0:
                gap = np.abs(finite / limit - 1.0).min()
                self.narrowest = min(self.narrowest, gap)
        elif kind == "explicit":
            dims = [e["dim"] for e in options["entries"] if e["head"] == head]
        else:
            raise ValueError(f"unknown selection {kind}")
        return sorted(d for d in dims if np.isfinite(norms[d]))


class ArmRun:
    """Runs one sequence of one model under a list of rules."""

    def __init__(
        self,
        config: transformers.LlamaConfig,
        rules: list[dict],
        prompt_rows: int,
    ):
        self._group = config.num_attention_heads // config.num_key_value_heads
        self._rules = [RULE_DEFAULTS | rule for rule in rules]
        self._prompt_rows = prompt_rows
        self._cache: dict[tuple[int, str], np.ndarray] = {}
        # Maps (rule, layer, tensor) to the choices by head of the view.
        self._prompt_choice: dict[tuple[int, int, str], dict[int, Chosen]] = {}
        # The undisrupted rows of S and of generated tokens, for reselect.
        self._history: dict[tuple[int, int, str], np.ndarray] = {}
        self.selector = Selector()
        # {"rule", "layer", "tensor", "step", "chosen": head or position to
        # Chosen}, in the order of the passes.
        self.applied: list[dict] = []
        # Maps (layer, hook point) to L2 norms over the prompt (heads, D), after
        # RoPE and before any rule.
        self.norms: dict[tuple[int, str], np.ndarray] = {}

    # ------------------------------------------------------------ selection

    def _heads(self, rule: dict, view: np.ndarray) -> list[int]:
        return rule["heads"] or list(range(view.shape[1]))

    def _positions(self, rule: dict, current: Pass) -> list[int]:
        """Returns the rows of this pass that the rule changes."""
        if rule["phase"] == ("decode" if current.step is None else "prefill"):
            return []
        if current.step is not None:
            return [0]
        span = rule["positions"] or self._stat_span(rule)
        return list(range(*span))

    def _stat_span(self, rule: dict) -> list[int]:
        return rule["stat_span"] or [0, self._prompt_rows]

    def _replacement(self, rule: dict, x: np.ndarray, dims: list[int]) -> list:
        """Returns dims' values from x (rows, heads that share a value, D)."""
        if not dims or rule["replace"] == "scale":
            return []
        if rule["replace"] == "zero":
            return [0.0]
        if rule["replace"] == "pooled_mean":
            return [float(x[:, :, dims].mean())]
        assert rule["axis"] == "per_head"
        return [float(m) for m in x[:, 0, dims].mean(axis=0)]

    def _choose_per_head(
        self, rule: dict, x: np.ndarray, layer: int, tensor: str, step: int
    ) -> dict[int, Chosen]:
        """Returns choices by head from x (rows of S, heads of the view, D)."""
        norms = np.sqrt((x * x).sum(axis=0))
        out = {}
        for head in self._heads(rule, x):
            place = (layer, TENSOR_INDEX[tensor], head, step)
            dims = self.selector.choose(
                rule["select"], norms[head], place, head
            )
            values = self._replacement(rule, x[:, head : head + 1], dims)
            out[head] = Chosen(dims, values, norms[head])
        return out

    def _choices(
        self,
        index: int,
        layer: int,
        tensor: str,
        view: np.ndarray,
        current: Pass,
    ) -> dict[int, Chosen]:
        """Returns the per_head choices for this pass, by head of the view."""
        rule = self._rules[index]
        key = (index, layer, tensor)
        if current.step is None:
            x = view[slice(*self._stat_span(rule))]
            self._history[key] = x
            self._prompt_choice[key] = self._choose_per_head(
                rule, x, layer, tensor, 0
            )
            self._note(key, current, self._prompt_choice[key])
            return self._prompt_choice[key]
        if not rule["reselect"] or rule["phase"] == "prefill":
            return self._prompt_choice[key]
        x = self._history[key] = np.concatenate([self._history[key], view])
        chosen = self._choose_per_head(
            rule, x, layer, tensor, current.philox_step
        )
        self._note(key, current, chosen)
        return chosen

    def _write(
        self,
        rule: dict,
        edit: Edit,
        rows: list[int],
        heads: list[int],
        chosen: Chosen,
    ) -> None:
        if not rows or not chosen.dims:
            return
        where = np.ix_(rows, heads, chosen.dims)
        edit.mask[where] = True
        if rule["replace"] == "scale":
            edit.values[where] *= rule["factor"]
        else:
            edit.values[where] = chosen.values

    def _edit(
        self,
        index: int,
        layer: int,
        tensor: str,
        view: np.ndarray,
        current: Pass,
    ) -> Edit:
        """Returns rule `index`'s changes to view (T, heads of the view, D)."""
        rule = self._rules[index]
        edit = Edit(np.zeros(view.shape, dtype=bool), view.copy())
        rows = self._positions(rule, current)
        if rule["axis"] == "per_head":
            choices = self._choices(index, layer, tensor, view, current)
            for head, chosen in choices.items():
                self._write(rule, edit, rows, [head], chosen)
        else:
            heads = self._heads(rule, view)
            choices = {}
            for row in rows:
                x = view[row : row + 1, heads]
                position = current.start + row
                place = (
                    layer,
                    TENSOR_INDEX[tensor],
                    position,
                    current.philox_step,
                )
                norms = np.sqrt((x[0] * x[0]).sum(axis=0))
                dims = self.selector.choose(rule["select"], norms, place, None)
                values = self._replacement(rule, x, dims)
                chosen = Chosen(dims, values, norms)
                choices[position] = chosen
                self._write(rule, edit, [row], heads, chosen)
            if rows:
                self._note((index, layer, tensor), current, choices)
        return edit

    def _note(
        self,
        key: tuple[int, int, str],
        current: Pass,
        choices: dict[int, Chosen],
    ) -> None:
        index, layer, tensor = key
        self.applied.append(
            {
                "rule": index,
                "layer": layer,
                "tensor": tensor,
                "step": current.step,
                "chosen": choices,
            }
        )

    # ------------------------------------------------------------ attention

    def _rules_at(self, layer: int, tensor: str, points: tuple[str, ...]):
        for index, rule in enumerate(self._rules):
            in_layer = rule["layers"] is None or layer in rule["layers"]
            if (
                in_layer
                and tensor in rule["tensors"]
                and rule["point"] in points
            ):
                yield index, rule

    def query(
        self, layer: int, pre: np.ndarray, rope, current: Pass
    ) -> np.ndarray:
        """Returns the Q that attention uses, (T, H, D), from Q before RoPE."""
        out = pre.copy()
        for index, _ in self._rules_at(layer, "q", ("pre_rope",)):
            edit = self._edit(index, layer, "q", pre, current)
            out[edit.mask] = edit.values[edit.mask]
        out, clean = rope(out), rope(pre)
        self._keep_norms(layer, "hook_rot_q", clean, current)
        for index, _ in self._rules_at(layer, "q", ("post_rope",)):
            edit = self._edit(index, layer, "q", clean, current)
            out[edit.mask] = edit.values[edit.mask]
        return out

    def key_or_value(
        self, layer: int, tensor: str, pre: np.ndarray, rope, current: Pass
    ) -> np.ndarray:
        """Returns K or V of all positions as attention reads it, (keys, H, D).

        pre: this pass's rows before RoPE (T, G, D). Adds them to the cache. For
        V, `rope` is the identity and both points mean the same.
        """
        fresh = self._expand(pre)
        cached = pre.copy()
        if tensor == "v":
            stages = [(("pre_rope", "post_rope"), pre)]
        else:
            stages = [(("pre_rope",), pre), (("post_rope",), rope(pre))]
        for points, clean in stages:
            if "post_rope" in points:
                point = "hook_v" if tensor == "v" else "hook_rot_k"
                self._keep_norms(layer, point, clean, current)
                fresh, cached = rope(fresh), rope(cached)
            for index, rule in self._rules_at(layer, tensor, points):
                by_query = rule["kv_grouping"] == "query_head"
                view = self._expand(clean) if by_query else clean
                edit = self._edit(index, layer, tensor, view, current)
                if not by_query:
                    edit = Edit(
                        self._expand(edit.mask), self._expand(edit.values)
                    )
                fresh[edit.mask] = edit.values[edit.mask]
                if rule["kv_cache"] == "persist":
                    self._persist(cached, edit)
        key = (layer, tensor)
        earlier = self._cache.get(key, cached[:0])
        self._cache[key] = np.concatenate([earlier, cached])
        return np.concatenate([self._expand(earlier), fresh])

    def _keep_norms(
        self, layer: int, point: str, x: np.ndarray, current: Pass
    ) -> None:
        if current.step is None:
            self.norms[layer, point] = np.linalg.norm(x, axis=0)

    def _expand(self, x: np.ndarray) -> np.ndarray:
        """Expands (T, G, D) to (T, H, D)."""
        return np.repeat(x, self._group, axis=1)

    def _persist(self, cached: np.ndarray, edit: Edit) -> None:
        """Writes one copy of each group; all its copies must agree."""
        mask = edit.mask[:, :: self._group]
        values = edit.values[:, :: self._group]
        if not np.array_equal(edit.mask, self._expand(mask)):
            raise ValueError("persist: the copies of a group differ")
        cached[mask] = values[mask]


def _attention_forward(
    self, hidden_states, position_embeddings, attention_mask=None, **kwargs
):
    """LlamaAttention.forward; `self.arm` decides what it reads."""
    del attention_mask, kwargs
    arm, current = self.arm, self.arm_pass
    rows = hidden_states.shape[1]

    def project(projection: torch.nn.Linear) -> np.ndarray:
        y = projection(hidden_states)[0]
        return y.view(rows, -1, self.head_dim).numpy()

    cos, sin = (table[0] for table in position_embeddings)

    def rope(x: np.ndarray) -> np.ndarray:
        # (T, heads, D): the head axis is axis 1.
        t = torch.from_numpy(x)
        return modeling_llama.apply_rotary_pos_emb(t, t, cos, sin, 1)[0].numpy()

    layer = self.layer_idx
    q = arm.query(layer, project(self.q_proj), rope, current)
    k = arm.key_or_value(layer, "k", project(self.k_proj), rope, current)
    v = arm.key_or_value(layer, "v", project(self.v_proj), lambda x: x, current)
    q, k, v = (x.transpose(1, 0, 2) for x in (q, k, v))  # (H, rows, D)
    scores = q @ k.transpose(0, 2, 1) * self.scaling
    positions = current.start + np.arange(rows)
    scores[:, np.arange(k.shape[1])[None] > positions[:, None]] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    z = (weights @ v).transpose(1, 0, 2).reshape(1, rows, -1)
    return self.o_proj(torch.from_numpy(z)), None


class DisruptedLlama:
    """A float64 Llama model, or a float32 one widened pass by pass."""

    def __init__(self, model: transformers.LlamaForCausalLM):
        self._model = model
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.forward = types.MethodType(_attention_forward, attention)

    def run(
        self, rules: list[dict], ids: list[int], decode_ids: list[int]
    ) -> tuple[np.ndarray, np.ndarray, ArmRun]:
        """Returns prefill logits (T, vocab), decode logits (steps, vocab), the
        run.

        decode_ids are forced.
        """
        arm = ArmRun(self._model.config, rules, len(ids))
        prefill = self._pass(arm, ids, Pass(0, len(ids), None))
        decode = [
            self._pass(arm, [token], Pass(len(ids) + step, 1, step))
            for step, token in enumerate(decode_ids)
        ]
        return prefill, np.concatenate([prefill[:0], *decode]), arm

    def _pass(self, arm: ArmRun, ids: list[int], current: Pass) -> np.ndarray:
        for layer in self._model.model.layers:
            layer.self_attn.arm = arm
            layer.self_attn.arm_pass = current
        positions = torch.arange(current.start, current.start + len(ids))
        with torch.no_grad(), hf_oracle.float64_everywhere():
            logits = self._model(
                torch.tensor([ids]),
                position_ids=positions[None],
                use_cache=False,
            ).logits[0]
        return logits.numpy()
