"""Records each pass's RoPE frequencies if they depend on the sequence."""

import torch

_NOTES = {
    "dynamic": (
        "Before a pass after which the sequence has n positions, n >"
        " max_position_embeddings: theta' = theta * (factor * n /"
        " max_position_embeddings - (factor - 1)) ^ (D / (D - 2)), frequency i ="
        " theta'^(-2 i / D). n <= max_position_embeddings: plain theta. So each"
        " decode step has its own frequencies; keys already in the cache keep"
        " those of the pass that wrote them."
    ),
    "longrope": (
        "A pass after which the sequence has more than"
        " original_max_position_embeddings positions uses long_factor, else"
        " short_factor: frequency i = theta^(-2 i / R) / factor[i], R rotated"
        " dims. Keys already in the cache keep theirs. cos and sin are multiplied"
        " with attention_factor in both cases."
    ),
}


class RopeNotes:
    """Collects the frequencies of passes as they are run."""

    def __init__(self, rope_type: str):
        self._rope_type = rope_type
        self._passes: dict[str, list[float]] = {}
        self._attention_factor = 1.0

    def add(self, prompt: str, part: str, model: torch.nn.Module) -> None:
        """Records the frequencies; a caller adds each pass after it has run."""
        if self._rope_type not in _NOTES:
            return
        rotary = model.model.rotary_emb
        assert rotary.inv_freq.dtype == torch.float64
        self._passes[f"{prompt}/{part}"] = rotary.inv_freq.tolist()
        self._attention_factor = float(rotary.attention_scaling)

    def json(self) -> dict:
        """Returns the members for golden.json; none for other kinds of RoPE."""
        if not self._passes:
            return {}
        return {
            "notes": {
                "rope": _NOTES[self._rope_type],
                "frequencies": self._passes,
                "attention_factor": self._attention_factor,
            }
        }
