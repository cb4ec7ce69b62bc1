"""What a tokenizer's files say and the API does not: the texts of BOS and EOS,
and the chat template."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from qkscope import chat
from qkscope.errors import BadFile


class TokenizerFiles:
    """A folder with tokenizer_config.json, or that file. bos_token, eos_token:
    texts, or None. BadFile: it cannot be read."""

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        self.path = pathlib.Path(path)
        if self.path.is_dir():
            self.path = self.path / "tokenizer_config.json"
        try:
            config = json.loads(self.path.read_text("utf-8"))
        except OSError as error:
            raise BadFile(f"tokenizer: cannot read {self.path}: "
                          f"{error.strerror}") from None
        except ValueError as error:
            raise BadFile(f"tokenizer: {self.path}: {error}") from None
        if not isinstance(config, dict):
            raise BadFile(f"tokenizer: {self.path}: is no object")
        self.bos_token = _text(config.get("bos_token"))
        self.eos_token = _text(config.get("eos_token"))
        self._template: Optional[tuple[str, dict[str, str]]] = None

    @property
    def template(self) -> str:
        """The chat template. BadFile: the files have none."""
        return self._loaded()[0]

    def _loaded(self) -> tuple[str, dict[str, str]]:
        if self._template is None:
            self._template = chat.load_template(self.path)
        return self._template

    def render_chat(self, messages: Sequence[Mapping[str, Any]],
                    add_generation_prompt: bool) -> str:
        """The chat's text. Needs the extra "chat"."""
        template, tokens = self._loaded()
        return chat.render_chat(
            template, messages, add_generation_prompt=add_generation_prompt,
            **{"tools": None, "documents": None, **tokens})


def _text(token: Any) -> Optional[str]:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
