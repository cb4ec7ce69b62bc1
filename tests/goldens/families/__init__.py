"""The tiny models, by golden name."""

from . import gemma, llama, mistral, qwen
from .family import Family

FAMILIES: dict[str, Family] = {}
for _module in (llama, qwen, gemma, mistral):
    FAMILIES |= _module.FAMILIES
