"""The tokenizer of a bridge: the user's, or the server's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from transformer_lens.model_bridge.sources._bridge_builder import \
    configure_tokenizer

from qkscope.errors import InvalidRequest
from qkscope.lab import Lab
from qkscope.spec import Prompt
from qkscope.v1 import analysis_pb2


class ServedTokenizer:
    """As much of a transformers tokenizer as RemoteBridge calls, on the server.

    bos_token: what the server puts before a text, or None. Tokens that the
    model's files name and that stand in no text are not known here.
    """

    eos_token: Optional[str] = None
    eos_token_id: Optional[int] = None
    pad_token: Optional[str] = None
    pad_token_id: Optional[int] = None
    padding_side = "right"

    def __init__(self, lab: Lab, model: str, vocab_size: int) -> None:
        self._lab = lab
        self._model = model
        self.vocab_size = vocab_size
        tokens = lab.tokenize(model, "a")
        first = tokens.special[:1] == [True]
        self.bos_token_id = tokens.ids[0] if first else None
        self.bos_token = self.decode([tokens.ids[0]]) if first else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._lab.tokenize(self._model, Prompt(
            text, parse_special=True, add_special_tokens=None
            if add_special_tokens else False)).ids

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        if hasattr(token_ids, "tolist"):
            token_ids = token_ids.tolist()
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self._lab.detokenize(self._model, ids,
                                    keep_special=not skip_special_tokens)

    def batch_decode(self, rows: Sequence[Any],
                     skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in rows]

    def __call__(self, text: Union[str, Sequence[str]],
                 return_tensors: Optional[str] = None, padding: bool = False,
                 truncation: bool = False, max_length: Optional[int] = None,
                 add_special_tokens: bool = True) -> dict[str, Any]:
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        rows = [self.encode(one, add_special_tokens) for one in texts]
        if truncation and max_length is not None:
            rows = [row[:max_length] for row in rows]
        if len({len(row) for row in rows}) > 1 and return_tensors:
            raise InvalidRequest("texts of several lengths need padding, which "
                                 "a qkscope server does not take",
                                 remedy="run them one by one")
        if return_tensors is None:
            return {"input_ids": rows[0] if single else rows}
        return {"input_ids": torch.tensor(rows)}


def prepare_tokenizer(tokenizer: Any, lab: Lab, info: analysis_pb2.ModelInfo,
                      config: Any) -> Any:
    """The bridge's tokenizer; notes in `config` whether it puts BOS before a
    text. None: neither the caller nor the server has one."""
    if isinstance(tokenizer, str) or hasattr(tokenizer, "__fspath__"):
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if tokenizer is not None:
        return configure_tokenizer(tokenizer, config)
    if info.text_problem:
        return None
    served = ServedTokenizer(lab, info.name, info.vocab_size)
    config.tokenizer_prepends_bos = served.bos_token is not None
    return served
