"""One self-contained HTML page: text is escaped, and a policy in the page lets
only its own script and style run, and nothing be loaded."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""


def escape(value: Any) -> Html:
    """HTML of a value; text that is Html already stays."""
    return value if isinstance(value, Html) else Html(
        html.escape(str(value), quote=True))


def element(tag: str, content: Any = "", /, **attributes: Any) -> Html:
    """An element with escaped content and attributes. `class_` and other names
    with an underscore at the end lose it, one inside becomes a hyphen; an
    attribute that is True has no value, one that is None or False is left out.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(value)}"')
        for name, value in attributes.items() if value not in (None, False))
    return Html(f"<{tag}{written}>{escape(content)}</{tag}>")


def join(parts: Iterable[Any]) -> Html:
    return Html("".join(escape(part) for part in parts))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]],
          caption: Any = "") -> Html:
    """A table; cells that are numbers, or look like them, stand right."""
    def cell(value: Any) -> Html:
        if isinstance(value, Html):
            return element("td", value)
        text = str(value)
        number = bool(text) and text.lstrip("\N{MINUS SIGN}-")[:1].isdigit()
        return element("td", text, class_="n" if number else None)

    top = element("tr", join(element("th", name, scope="col")
                             for name in head))
    body = join(element("tr", join(map(cell, row))) for row in rows)
    return element("div", element("table", join(
        [element("caption", caption) if caption else "",
         element("thead", top), element("tbody", body)])), class_="wide")


def picture(png: bytes, alt: str) -> Html:
    data = base64.b64encode(png).decode("ascii")
    return Html(f'<img src="data:image/png;base64,{data}" '
                f'alt="{escape(alt)}">')


def data_block(identifier: str, value: Any) -> Html:
    """JSON that the page's script reads. No text in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Html(f'<script type="application/json" id="{escape(identifier)}">'
                f"{text}</script>")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(
        hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


def page(title: str, body: Html, *, style: str, script: str = "",
         language: str = "en") -> str:
    """The whole page. `style` and `script` are ours, never data."""
    policy = ("default-src 'none'; img-src data:; base-uri 'none'; "
              f"form-action 'none'; style-src {_digest(style)}")
    if script:
        policy += f"; script-src {_digest(script)}"
    head = join([
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" '
             f'content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, '
             'initial-scale=1">'),
        Html('<meta name="referrer" content="no-referrer">'),
        element("title", title), Html(f"<style>{style}</style>")])
    end = Html(f"<script>{script}</script>") if script else Html()
    return (f'<!doctype html>\n<html lang="{escape(language)}"><head>{head}'
            f"</head><body>{body}{end}</body></html>\n")
