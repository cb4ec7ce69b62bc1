"""The tiny models, by golden name."""

from . import (
    gemma,
    gpt2,
    gpt_neo,
    gpt_neox,
    jamba,
    llama,
    llama_rope,
    mistral,
    opt,
    phi,
    qwen,
    qwen2_vl,
)
from .family import Family

_MODULES = (
    llama,
    llama_rope,
    qwen,
    gemma,
    mistral,
    phi,
    gpt2,
    opt,
    gpt_neo,
    gpt_neox,
    jamba,
    qwen2_vl,
)

FAMILIES: dict[str, Family] = {}
for _module in _MODULES:
    FAMILIES |= _module.FAMILIES
