"""Images in prompts, and what Qwen2-VL's vision tower computes of them.

In golden.safetensors, beside what make_goldens.py describes. R patches of all of
the prompt's images, one image after another; in an image the 2 x 2 patches that
are merged follow each other. E embed_dim, H heads, D dims of a head, all of the
tower.

    P/pixel_values                          (R, channels * frames * rows *
                                             columns) input: a patch's values
    P/image_grid_thw                        (images, 3) I64, input: frames, rows
                                             and columns, in patches
    P/prefill/position_ids                  (3, T) I64: M-RoPE's frame, row and
    P/decode.S/position_ids                 (3, 1)   column of each token
    P/prefill/vision.patch_embeds           (R, E)
    P/prefill/vision.layer.N.hook_q, _k, _v (R, H, D) parts of qkv's output
    P/prefill/vision.layer.N.hook_rot_q, _k (R, H, D) after the 2-D RoPE
    P/prefill/vision.layer.N.hook_z         (R, H, D) before proj
    P/prefill/vision.layer.N.output         (R, E)    of the block
    P/prefill/vision.image_embeds           (R / 4, hidden_size) they replace the
                                             rows of image_token_id, in order
"""

import dataclasses

import torch
from torch import nn
from transformers.models.qwen2_vl import modeling_qwen2_vl

from families.family import Family, Tensors
from families.qwen2_vl import IMAGE, PATCH_VALUES, VISION_END, VISION_START


@dataclasses.dataclass
class Images:
    """pixel_values (patches, values); image_grid_thw (images, 3)."""

    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor

    def inputs(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """Returns the model's inputs besides the prompt's ids."""
        return {
            "pixel_values": self.pixel_values,
            "image_grid_thw": self.image_grid_thw,
            "mm_token_type_ids": (torch.tensor([ids]) == IMAGE).int(),
        }


def make_images(
    family: Family, prompt: int, ids: list[int], generator: torch.Generator
) -> tuple[list[int], Images | None]:
    """Returns the prompt with its images' placeholders, and the patches.

    Images follow the third id, with two ids of text between them.
    """
    grids = torch.tensor(family.images[prompt])
    if not len(grids):
        return ids, None
    out, rest = ids[:3], ids[3:]
    for grid in grids:
        merged = int(grid.prod()) // 4
        out += [VISION_START] + [IMAGE] * merged + [VISION_END] + rest[:2]
        rest = rest[2:]
    patches = int(grids.prod(dim=1).sum())
    pixels = torch.randn(patches, PATCH_VALUES, generator=generator)
    return out + rest, Images(pixels, grids)


class VisionRecorder:
    """Keeps what the tower and M-RoPE see in one pass."""

    def __init__(self, model: nn.Module):
        self._kept: Tensors = {}
        self._layer = -1
        visual = model.model.visual
        self._keep_output("patch_embeds", visual.patch_embed)
        self._keep_output("image_embeds", visual.merger)
        for index, block in enumerate(visual.blocks):
            self._watch(index, block)
        model.model.language_model.rotary_emb.register_forward_pre_hook(
            self._keep_positions, with_kwargs=True
        )
        self._rotate = modeling_qwen2_vl.apply_rotary_pos_emb_vision
        modeling_qwen2_vl.apply_rotary_pos_emb_vision = self._keep_rotated

    def _keep_output(self, name: str, module: nn.Module) -> None:
        def hook(_module, _inputs, output):
            self._kept[f"vision.{name}"] = output

        module.register_forward_hook(hook)

    def _watch(self, index: int, block: nn.Module) -> None:
        prefix = f"vision.layer.{index}"

        def on_qkv(_module, _inputs, output):
            self._layer = index
            heads = output.view(len(output), 3, block.attn.num_heads, -1)
            for part, name in enumerate("qkv"):
                self._kept[f"{prefix}.hook_{name}"] = heads[:, part]

        def on_projection(_module, inputs):
            z = inputs[0].view(len(inputs[0]), block.attn.num_heads, -1)
            self._kept[f"{prefix}.hook_z"] = z

        block.attn.qkv.register_forward_hook(on_qkv)
        block.attn.proj.register_forward_pre_hook(on_projection)
        self._keep_output(f"layer.{index}.output", block)

    def _keep_rotated(self, q, k, cos, sin):
        q, k = self._rotate(q, k, cos, sin)
        prefix = f"vision.layer.{self._layer}"
        self._kept[f"{prefix}.hook_rot_q"] = q
        self._kept[f"{prefix}.hook_rot_k"] = k
        return q, k

    def _keep_positions(self, _module, args, kwargs):
        positions = args[1] if len(args) > 1 else kwargs["position_ids"]
        self._kept["position_ids"] = positions[:, 0]

    def take(self, prefix: str) -> Tensors:
        """Returns the last pass's tensors, with `prefix`/ before each name."""
        kept, self._kept = self._kept, {}
        return {f"{prefix}/{name}": t.clone() for name, t in kept.items()}

    def close(self) -> None:
        modeling_qwen2_vl.apply_rotary_pos_emb_vision = self._rotate
