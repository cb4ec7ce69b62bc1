"""What makes one tiny model."""

import dataclasses
from collections.abc import Callable

import torch

VOCAB = 97

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Family:
    """One tiny model.

    config: config.json, field for field as a real checkpoint has it.
    covers: the features it is there for, a cell of FAMILIES.md.
    matters: changes to `config`; each must change the logits visibly.
    text_ids: ids of text are under this.
    images: of each prompt, the (frames, rows, columns) of its images in patches.
    stored: the tensors as published checkpoints name them, from those of
        transformers' save_pretrained; None if these are the same.
    """

    config: dict
    seed: int
    covers: str
    matters: tuple[dict, ...] = ()
    stored: Callable[[Tensors], Tensors] | None = None
    dtype: torch.dtype = torch.float32
    prompt_lengths: tuple[int, int] = (13, 70)  # p1 crosses a 64-position tile.
    text_ids: int = VOCAB
    images: tuple[tuple[tuple[int, int, int], ...], ...] = ((), ())

    @property
    def rope_type(self) -> str:
        scaling = self.config.get("rope_scaling") or {}
        return scaling.get("rope_type") or scaling.get("type") or "default"
