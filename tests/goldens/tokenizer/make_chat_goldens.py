#!/usr/bin/env python3
"""Writes chats.json beside this file: conversations in the layout of the
models' published templates, rendered by `transformers`, with the ids of the
small tokenizers that make_goldens.py leaves here.
tests/engine/tokenizer/tokenizer_chat_golden_test.cc checks them.
"""

import json
from pathlib import Path

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}"
)

# The templates are as the models were published. Those of Qwen2.5, SmolLM2 and
# Llama 3.1 insert more text; EncodeChat's comment describes it.
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'"
        " + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    # Llama-2-7b-chat-hf
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}"
        "{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = false %}"
        "{% endif %}{% for message in loop_messages %}" + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
        "message['content'] %}{% else %}{% set content = message['content'] %}"
        "{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    # Meta-Llama-3-8B-Instruct
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    # Mistral-7B-Instruct-v0.2
    "mistral": (
        "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
        "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token}}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}"
        "{% endif %}{% endfor %}"
    ),
    # gemma-2-2b-it
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + ALTERNATE +
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
        "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    # gemma-3-270m-it, without its parts for images
    "gemma3": (
        "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
        "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}"
        "{%- set loop_messages = messages[1:] -%}{%- else -%}"
        "{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}"
        "{%- endif -%}{%- for message in loop_messages -%}" + ALTERNATE +
        "{%- if (message['role'] == 'assistant') -%}{%- set role = 'model' -%}"
        "{%- else -%}{%- set role = message['role'] -%}{%- endif -%}"
        "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first "
        "else '') }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}"
        "{%- endfor -%}{%- if add_generation_prompt -%}"
        "{{'<start_of_turn>model\n'}}{%- endif -%}"
    ),
    # Phi-3.5-mini-instruct
    "phi3": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' and message['content'] %}"
        "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'user' %}"
        "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
}
# Format, tokenizer, BOS, EOS.
SUBJECTS = [
    ("chatml", "smollm", None, "<|im_end|>"),
    ("chatml", "qwen2", None, "<|im_end|>"),
    ("llama2", "llama2", "<s>", "</s>"),
    ("llama3", "llama3", "<|begin_of_text|>", "<|eot_id|>"),
    ("mistral", "llama2", "<s>", "</s>"),
    ("mistral", "mistral3", "<s>", "</s>"),
    ("gemma", "gemma", "<bos>", "<eos>"),
    ("gemma3", "gemma", "<bos>", "<eos>"),
    ("phi3", "phi3", "<s>", "<|endoftext|>"),
]
SYSTEM = ("system", "You are terse.")
CHATS = [
    [("user", "Hi")],
    [SYSTEM, ("user", "Hi")],
    [("user", "\n Count to 3, là. \n"), ("assistant", " 1 2 3\n"), ("user", "On")],
    [SYSTEM, ("user", "Hi"), ("assistant", "Hello!"), ("user", "  def f():\n\tx")],
    [("system", "  spaced \n"), ("user", "a\n\n"), ("assistant", "b\n")],
    [("system", ""), ("user", "x")],
    [("user", "")],
    [("user", " \t\n ")],
    [SYSTEM, ("user", " \n ")],
    [("user", "日本語 👍🏽 e\u0301"), ("assistant", "\u2003é\x1f")],
    [("user", "a"), ("assistant", "")],
    [("assistant", "first")],
    [("user", "a"), ("user", "b")],
    [SYSTEM, ("assistant", "a")],
    [("user", "a"), ("assistant", "b"), ("assistant", "c")],
    [("tool", "42")],
    [("user", "a"), ("assistant", "b"), SYSTEM],
]  # fmt: skip


def render(tokenizer, template, chat, generation):
    messages = [{"role": role, "content": content} for role, content in chat]
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False,
            add_generation_prompt=generation,
        )  # fmt: skip
    except TemplateError as error:
        return {"error": str(error)}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return {"text": text, "ids": ids}


def main():
    folder = Path(__file__).parent
    cases = []
    for name, family, bos, eos in SUBJECTS:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_file(str(folder / f"{family}.json")),
            bos_token=bos, eos_token=eos,
        )  # fmt: skip
        for chat in CHATS:
            for generation in (False, True):
                cases.append({
                    "format": name, "tokenizer": family,
                    "messages": chat, "generation": generation,
                    **render(tokenizer, TEMPLATES[name], chat, generation),
                })  # fmt: skip
    lines = ",\n".join(
        json.dumps(c, separators=(",", ":"), ensure_ascii=False) for c in cases
    )
    (folder / "chats.json").write_text(f'{{"cases":[\n{lines}\n]}}\n', "utf-8")


if __name__ == "__main__":
    main()
