"""FAMILIES.md: which golden covers what."""

import pathlib

from families import Family

_HEAD = """# The tiny models and what each is there for

Written by `make_goldens.py --table` from `families/`.

| golden | family | features | transformers class |
|---|---|---|---|
"""


def write(path: pathlib.Path, families: dict[str, Family]) -> None:
    rows = [
        f"| `{name}` | {family.config['model_type']} | {family.covers} "
        f"| `{family.config['architectures'][0]}` |\n"
        for name, family in families.items()
    ]
    path.write_text(_HEAD + "".join(rows))
