"""Inspect on a qkscope server: the model provider `qkscope`.

    inspect eval task.py --model qkscope/smollm2 \\
        -M server=127.0.0.1:7461 -M arm=top_k:1 -M chat_format=chatml

Inspect finds it by the entry point of this package. Needs the extra "inspect".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

from qkscope.arms import Arm
from qkscope.errors import InvalidRequest
from qkscope.evals import activations
from qkscope.evals.text_model import Generated, TextModel
from qkscope.extras import need
from qkscope.lab import Lab, connect
from qkscope.spec import GenerateSpec

need("inspect_ai", "inspect")

# pylint: disable=wrong-import-position
from anyio import to_thread
from inspect_ai.model import (ChatCompletionChoice, ChatMessage,
                              ChatMessageAssistant, GenerateConfig, Logprob,
                              Logprobs, ModelAPI, ModelOutput, ModelUsage,
                              modelapi)
from inspect_ai.tool import ToolChoice, ToolInfo

_OPTIONS = ("server", "arm", "tokenizer", "chat_format", "activations",
            "activations_form", "token_file", "ca")
# Options of a generation that would change it, and that no server has.
_NOT_SERVED = ("frequency_penalty", "presence_penalty", "logit_bias", "best_of",
               "num_choices", "top_logprobs", "prompt_logprobs",
               "response_schema")
_STOP_REASONS = {"length": "max_tokens", "stop_token": "stop",
                 "stop_string": "stop"}


@modelapi(name="qkscope")
class QkscopeAPI(ModelAPI):  # type: ignore[misc]
    """A served model, and an arm.

    base_url, or the model argument `server`: where the server is; api_key: the
      bearer token. Defaults as in qkscope.connect.
    arm: text as of `qkctl --arm`, or an Arm; default clean.
    chat_format, tokenizer: how a chat becomes text: by a format of the server's
      or by the chat template in the tokenizer's folder. Without them only a
      single user message is taken, as it is.
    activations: hooks of the prompt to put into the output's metadata, such as
      "3:rot_q 3:rot_k"; activations_form: "raw" (default), or norms.

    Generation is greedy unless a temperature is given.
    """

    def __init__(self, model_name: str, base_url: Optional[str] = None,
                 api_key: Optional[str] = None,
                 config: GenerateConfig = GenerateConfig(),
                 **model_args: Any) -> None:
        super().__init__(model_name, base_url, api_key, ["QKSCOPE_TOKEN"],
                         config)
        for name in model_args:
            if name not in _OPTIONS:
                raise InvalidRequest(f"model argument: there is no '{name}'",
                                     remedy="there are " + ", ".join(_OPTIONS))
        option = model_args.get
        self.places = activations.parse_keys(option("activations") or ())
        self.form: str = option("activations_form") or "raw"
        activations.capture(self.places, self.form, 1, "before")
        self._server = str(base_url or option("server") or "")
        self.lab = connect(self._server or None,
                           token=self.api_key or None,
                           token_file=option("token_file"), ca=option("ca"))
        self.text_model = TextModel(
            self.lab, model_name, arm=option("arm"),
            tokenizer=option("tokenizer"), chat_format=option("chat_format"))

    def close(self) -> None:
        self.lab.close()

    def connection_key(self) -> str:
        return self._server

    def max_connections(self) -> int:
        return 16

    def max_tokens(self) -> Optional[int]:
        return min(2048, self.text_model.limits.max_new_tokens)

    async def tokenize(self, text: str) -> list[int]:
        ids: list[int] = await self._in_thread(
            lambda lab: self.text_model.encode(text, False))
        return ids

    async def generate(self, input: list[ChatMessage], tools: list[ToolInfo],
                       tool_choice: ToolChoice, config: GenerateConfig
                       ) -> ModelOutput:
        del tool_choice
        if tools:
            raise InvalidRequest("tools: a qkscope server calls none")
        for name in _NOT_SERVED:
            if getattr(config, name, None) not in (None, 0, 1):
                raise InvalidRequest(f"{name}: a qkscope server has no such "
                                     "option", field=name)
        messages = [_plain(message) for message in input]
        return await self._in_thread(
            lambda lab: self._generate(lab, messages, config))

    async def _in_thread(self, work: Any) -> Any:
        """Runs work(lab) beside the event loop. A sample that is cancelled
        cancels its calls."""
        lab = self.lab.scope()
        try:
            return await to_thread.run_sync(lambda: work(lab),
                                            abandon_on_cancel=True)
        finally:
            lab.close()

    def _generate(self, lab: Lab, messages: Sequence[dict[str, str]],
                  config: GenerateConfig) -> ModelOutput:
        prompt = self._prompt(messages)
        room = self.text_model.info.context_length - len(prompt)
        if room < 1:
            return ModelOutput(
                model=self.model_name, choices=[ChatCompletionChoice(
                    message=ChatMessageAssistant(content=""),
                    stop_reason="model_length")],
                error=f"the prompt has {len(prompt)} tokens, and the model's "
                f"context is {len(prompt) + room}")
        spec = _spec(config, min(config.max_tokens or self.max_tokens() or 1,
                                 room))
        done = self.text_model.run_generation(lab, prompt, spec)
        return self._output(done, config, spec.max_new_tokens == room,
                            self._metadata(lab, prompt))

    def _prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        model = self.text_model
        if model.chat_format or model.files is not None:
            text = model.chat_text(messages,
                                   messages[-1]["role"] != "assistant")
            return model.encode(text)
        if len(messages) != 1 or messages[0]["role"] != "user":
            raise InvalidRequest(
                "chat: without a chat format, only a single user message is "
                "taken", remedy="give the model argument chat_format, or "
                "tokenizer, a folder with a chat template")
        return model.encode(messages[0]["content"])

    def _metadata(self, lab: Lab, prompt: list[int]) -> dict[str, Any]:
        arm = self.text_model.arm
        metadata: dict[str, Any] = {
            "arm": arm.name if arm is not None else "clean"}
        if self.places:
            run = lab.analyze(
                self.text_model.name, prompt, arms=[arm or Arm.clean()],
                compare=False, priority="batch", capture=activations.capture(
                    self.places, self.form, len(prompt),
                    "before" if self.text_model.undisrupted else "after"))
            metadata["activations"] = activations.encode(run[0], self.places)
        return metadata

    def _output(self, done: Generated, config: GenerateConfig, full: bool,
                metadata: dict[str, Any]) -> ModelOutput:
        reason = _STOP_REASONS.get(done.stop_reason, "unknown")
        if reason == "max_tokens" and full:
            reason = "model_length"
        logprobs = Logprobs(content=[
            Logprob(token=text, logprob=logprob)
            for text, logprob in zip(done.texts, done.logprobs)]
            ) if config.logprobs else None
        count = len(done.ids)
        return ModelOutput(
            model=self.model_name, metadata=metadata,
            choices=[ChatCompletionChoice(
                message=ChatMessageAssistant(
                    content=done.text, model=self.model_name,
                    source="generate"),
                stop_reason=reason, logprobs=logprobs)],
            usage=ModelUsage(input_tokens=done.prompt_tokens,
                             output_tokens=count,
                             total_tokens=done.prompt_tokens + count),
            error="the model's logits are not finite"
            if done.stop_reason == "non_finite" else None)


def _plain(message: ChatMessage) -> dict[str, str]:
    """A message of text alone."""
    content: Union[str, list[Any]] = message.content
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise InvalidRequest("tools: a qkscope server calls none")
    if not isinstance(content, str) and any(
            part.type not in ("text", "reasoning") for part in content):
        raise InvalidRequest("input: a qkscope server takes text alone here")
    return {"role": message.role, "content": message.text}


def _spec(config: GenerateConfig, max_new_tokens: int) -> GenerateSpec:
    fields = {name: value for name in ("temperature", "top_p", "top_k", "seed")
              if (value := getattr(config, name)) is not None}
    if not fields.get("temperature"):
        fields = {}
    return GenerateSpec(max_new_tokens=max_new_tokens,
                        stop=config.stop_seqs or (), **fields)
