"""TransformerLens on a qkscope server.

    from qkscope import lens
    bridge = lens.boot("smollm2", tokenizer="HuggingFaceTB/SmolLM2-135M-Instruct")
    logits, cache = bridge.run_with_cache("The city of Paris is in")
    cache["blocks.3.attn.hook_rot_q"]       # (1, positions, heads, d_head)

Needs the extra "lens". names.py, which maps names alone, needs nothing.
"""

from __future__ import annotations

from typing import Any, Optional, Union

from qkscope.arms import ArmLike
from qkscope.extras import need
from qkscope.lab import Lab


def boot(model: Optional[str] = None, server: Union[str, Lab, None] = None, *,
         tokenizer: Any = None, arm: Optional[ArmLike] = None,
         logits: str = "all", **connection: Any) -> Any:
    """Returns a transformer_lens RemoteBridge whose forward passes a server
    runs.

    model: default: the server's only one. server: "HOST:PORT", or a Lab;
      default as in qkscope.connect, which gets `connection`, too.
    tokenizer: a transformers tokenizer, or its name or folder, for inputs that
      are text. With the one that boot_transformers() takes, text becomes the
      same tokens, BOS included. Default: the server's.
    arm: for all passes; a pass may name its own (run_with_cache(..., arm=...)).
      Default: clean.
    logits: "all" positions, or only the "last" (a position has as many values
      as the vocabulary has tokens). They are log-probabilities: logits up to a
      constant per position.
    """
    need("transformer_lens", "lens")
    from qkscope.lens.driver import boot_bridge
    return boot_bridge(model, server, tokenizer, arm, logits, connection)
