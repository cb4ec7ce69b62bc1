"""A model's own chat template, rendered here in Jinja's sandbox, on request.

The server has the formats of ServerInfo.chat_formats. For any other template,
`render_chat` makes text of the messages; send its token ids, so that what was
rendered is what the model sees:

    prompt = chat_prompt(lab, "smollm2", messages, template=path)
    lab.analyze("smollm2", prompt)

Needs the extra "chat".
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from qkscope.errors import BadFile, InvalidRequest
from qkscope.extras import need
from qkscope.spec import Prompt

Messages = Sequence[Mapping[str, Any]]
_MAX_TEMPLATE_BYTES = 1 << 20


def load_template(path: Union[str, "os.PathLike[str]"]
                  ) -> tuple[str, dict[str, str]]:
    """Reads a template from a local tokenizer_config.json, a folder that holds
    it, or a .jinja file. Returns it and the special tokens that it may name
    (bos_token and the like). BadFile: there is none."""
    file = pathlib.Path(path)
    if file.is_dir():
        file = file / "tokenizer_config.json"
    try:
        with open(file, "rb") as stream:
            data = stream.read(_MAX_TEMPLATE_BYTES * 64)
        text = data.decode()
        if file.suffix != ".json":
            return text, {}
        config = json.loads(text)
    except OSError as error:
        raise BadFile(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise BadFile(f"{file}: {error}") from None
    template = config.get("chat_template")
    if isinstance(template, list):  # [{"name": ..., "template": ...}]
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    beside = file.with_name("chat_template.jinja")
    if not isinstance(template, str) and beside.is_file():
        template = load_template(beside)[0]
    if not isinstance(template, str):
        raise BadFile(f"{file}: has no chat_template")
    tokens = {}
    for name, token in config.items():
        if name.endswith("_token"):
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                tokens[name] = content
    return template, tokens


def render_chat(template: str, messages: Messages, *,
                add_generation_prompt: bool = True,
                **variables: Any) -> str:
    """The text of the messages. `variables`: what the template may name, such
    as bos_token. The template runs in Jinja's immutable sandbox: it can look at
    the messages, and at nothing of this process. InvalidRequest: it is
    malformed, or refuses the messages."""
    need("jinja2", "chat")
    sandbox = need("jinja2.sandbox", "chat")
    exceptions = need("jinja2.exceptions", "chat")
    if len(template.encode()) > _MAX_TEMPLATE_BYTES:
        raise InvalidRequest("chat template: is larger than "
                             f"{_MAX_TEMPLATE_BYTES} bytes")

    def refuse(message: str) -> None:
        raise exceptions.TemplateError(message)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent)
    try:
        return str(environment.from_string(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt, **variables))
    except exceptions.TemplateError as error:
        raise InvalidRequest(f"chat template: {error}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError,
            RecursionError) as error:
        raise InvalidRequest(
            f"chat template: {type(error).__name__}: {error}") from None


def chat_prompt(lab: Any, model: str, messages: Messages, *,
                template: Union[str, "os.PathLike[str]"],
                add_generation_prompt: bool = True,
                variables: Optional[Mapping[str, Any]] = None) -> Prompt:
    """The messages as a Prompt of token ids, by the template: its text, or the
    path of what load_template reads. Special tokens are those that the template
    writes; none is added."""
    tokens: dict[str, str] = {}
    if isinstance(template, str) and ("{%" in template or "{{" in template):
        text = template
    else:
        text, tokens = load_template(template)
    rendered = render_chat(text, messages,
                           add_generation_prompt=add_generation_prompt,
                           **{**tokens, **(variables or {})})
    ids = lab.tokenize(model, Prompt(rendered, add_special_tokens=False,
                                     parse_special=True)).ids
    return Prompt(token_ids=ids)
