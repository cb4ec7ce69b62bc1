"""FAMILIES.md: which golden covers what."""

import pathlib

from families import FAMILIES
from families.quantized import QUANTIZED

_HEAD = """# The tiny models and what each is there for

Written by `make_goldens.py --table` from `families/`; AWQ and GPTQ ones are made by `make_quantized_goldens.py`.

| golden | family | features | transformers class |
|---|---|---|---|
"""


def _row(name: str, config: dict, covers: str) -> str:
    return (
        f"| `{name}` | {config['model_type']} | {covers} "
        f"| `{config['architectures'][0]}` |\n"
    )


def write(path: pathlib.Path) -> None:
    models = FAMILIES | QUANTIZED
    rows = [_row(n, m.config, m.covers) for n, m in models.items()]
    path.write_text(_HEAD + "".join(rows))
