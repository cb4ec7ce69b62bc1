"""A served model as evaluation harnesses see one: token ids, log-probabilities,
generated text. What lm_eval.py and inspect.py share; needs neither.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from qkscope.arms import Arm, ArmLike, arm_proto, is_undisrupted
from qkscope.errors import InvalidRequest, NotFound, Unavailable
from qkscope.evals.tokenizer_files import TokenizerFiles
from qkscope.lab import Lab
from qkscope.spec import Capture, GenerateSpec, LogitsSpec, Prompt
from qkscope.v1 import analysis_pb2, spec_pb2

log = logging.getLogger("qkscope.evals")

# Arguments of TextModel that a harness passes on as they are.
OPTIONS = ("tokenizer", "chat_format", "prefix_token_id", "add_bos_token",
            "max_length", "concurrency", "priority")
# A call with more tokens than this could take longer than a server lets it.
_BATCH_TOKENS = 8192

Messages = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Generated:
    """A finished generation: `text` as a tokenizer decodes the whole of it,
    without special tokens and up to the first stop string; ids, texts and
    logprobs: of its tokens, an end-of-sequence token included."""
    text: str
    ids: list[int]
    texts: list[str]
    logprobs: list[float]
    stop_reason: str
    prompt_tokens: int


def parse_arm(arm: Optional[ArmLike]) -> Optional[spec_pb2.Arm]:
    """The arm's message. InvalidRequest: the text is no arm."""
    return None if arm is None else arm_proto(arm)


def choose_model(lab: Lab, model: Optional[str]) -> analysis_pb2.ModelInfo:
    """The model of this name, or the server's only one. Errors: there is none,
    or it takes no text, or it is not ready."""
    if model is not None:
        info = lab.model(str(model))
    else:
        there = lab.models()
        if len(there) != 1:
            names = ", ".join(m.name for m in there) or "none"
            raise NotFound(f"model: the server's models are {names}; name one")
        info = there[0]
    if info.state != analysis_pb2.ModelInfo.READY:
        state = analysis_pb2.ModelInfo.State.Name(info.state)
        raise Unavailable(f"model '{info.name}' is {state}"
                          + (f": {info.failure}" if info.failure else ""))
    return info


class TextModel:
    """A model, an arm, and how text becomes tokens.

    model: None: the server's only one. arm: None: clean.
    tokenizer: folder with the model's tokenizer_config.json, for what the API
      does not tell: the chat template, and from older servers the BOS and EOS
      tokens.
    chat_format: one of the server's formats, in place of a chat template.
    prefix_token_id: the token that stands before a text without context.
      Default: BOS, or else EOS, of `tokenizer` or of the model; of an older
      server, what its tokenizer puts before a text.
    add_bos_token: None: the tokenizer's own setting.
    max_length: tokens that a sequence may hold before its last one.
    batch_size: pairs of one Score call; concurrency: calls at a time.
    priority: of all calls.

    Errors: QkscopeError. A model without a tokenizer is an InvalidRequest.
    """

    def __init__(self, lab: Lab, model: Optional[str] = None, *,
                 arm: Optional[ArmLike] = None,
                 tokenizer: Union[str, pathlib.Path, None] = None,
                 chat_format: Optional[str] = None,
                 prefix_token_id: Optional[int] = None,
                 add_bos_token: Optional[bool] = None,
                 max_length: Optional[int] = None, batch_size: int = 32,
                 concurrency: int = 4, priority: str = "batch") -> None:
        self.lab = lab
        self.arm = parse_arm(arm)
        self.info = choose_model(lab, model)
        self.name: str = self.info.name
        if self.info.text_problem:
            raise InvalidRequest(
                f"model '{self.name}' takes no text, which evaluations need: "
                f"{self.info.text_problem}")
        self.limits = lab.server_info().limits
        self.files = (TokenizerFiles(tokenizer) if tokenizer is not None
                      else None)
        self.chat_format = chat_format
        self.add_bos_token = add_bos_token
        self.max_length = self._checked_length(max_length)
        if batch_size < 1:
            raise InvalidRequest(f"batch_size: must be at least 1, got "
                                 f"{batch_size}", field="batch_size")
        self.batch_size = min(batch_size, self.limits.max_score_pairs)
        self.concurrency = concurrency
        self.priority = priority
        self._prefix = prefix_token_id
        self._prefix_text: Optional[str] = None
        self._encoded: dict[tuple[str, Optional[bool]], list[int]] = {}

    @property
    def undisrupted(self) -> bool:
        return self.arm is None or is_undisrupted(self.arm)

    def _checked_length(self, wanted: Optional[int]) -> int:
        # Score counts the last token, too. What a disrupted arm cannot score in
        # another way, it may not have.
        most = self.info.context_length - (not self.undisrupted)
        if wanted is None:
            return most
        if not 1 <= wanted <= most:
            raise InvalidRequest(f"max_length: {wanted} is outside [1, {most}]",
                                 field="max_length")
        return wanted

    # ----------------------------------------------------------------- tokens

    def find_prefix_token(self) -> Optional[int]:
        """The token before a text without context; None: nobody says."""
        if self._prefix is None:
            text = self.files and (self.files.bos_token or self.files.eos_token)
            if text:
                self._prefix = self.token_id(text)
            elif self.info.HasField("bos_token_id"):
                self._prefix = self.info.bos_token_id
            elif self.info.eos_token_ids:
                self._prefix = self.info.eos_token_ids[0]
            else:  # an older server
                tokens = self.lab.tokenize(self.name, "a")
                if tokens.special and tokens.special[0]:
                    self._prefix = tokens.ids[0]
        return self._prefix

    @property
    def prefix_token_id(self) -> int:
        prefix = self.find_prefix_token()
        if prefix is None:
            raise InvalidRequest(
                f"prefix_token_id: model '{self.name}' puts no token before a "
                "text, so the first token of a text without context has nothing "
                "to follow",
                field="prefix_token_id",
                remedy="give prefix_token_id=ID, or tokenizer=FOLDER with its "
                "tokenizer_config.json")
        return prefix

    def token_id(self, text: str) -> int:
        """The id of a special token. InvalidRequest: it is not one token."""
        ids = self.lab.tokenize(self.name, Prompt(
            text, parse_special=True, add_special_tokens=False)).ids
        if len(ids) != 1:
            raise InvalidRequest(f"tokenizer: '{text}' is {len(ids)} tokens of "
                                 f"model '{self.name}', not one")
        return ids[0]

    def _special(self, text: str, wanted: Optional[bool]) -> Optional[bool]:
        """Whether special tokens are added: not before a BOS that is there."""
        if wanted is not None:
            return wanted
        if self._prefix_text is None:
            prefix = self.find_prefix_token()
            self._prefix_text = "" if prefix is None else self.lab.detokenize(
                self.name, [prefix], keep_special=True)
        if self._prefix_text and text.startswith(self._prefix_text):
            return False
        return self.add_bos_token

    def encode(self, text: str,
               add_special_tokens: Optional[bool] = None) -> list[int]:
        """Token ids, as transformers' tokenizer has them: text that spells a
        special token is that token."""
        key = (text, self._special(text, add_special_tokens))
        if key not in self._encoded:
            return self._tokenize(self.lab, key)
        return list(self._encoded[key])

    def _tokenize(self, lab: Lab, key: tuple[str, Optional[bool]]) -> list[int]:
        return lab.tokenize(self.name, Prompt(
            key[0], parse_special=True, add_special_tokens=key[1])).ids

    def prepare(self, texts: Iterable[str],
                add_special_tokens: Optional[bool] = None) -> None:
        """Tokenises many texts at a time, for `encode` until `forget`."""
        keys = dict.fromkeys((text, self._special(text, add_special_tokens))
                             for text in texts)
        todo = [key for key in keys if key not in self._encoded]
        for key, ids in zip(todo, self._map(todo, self._tokenize)):
            self._encoded[key] = ids

    def forget(self) -> None:
        self._encoded.clear()

    def _map(self, items: Sequence[Any], call: Any) -> Iterator[Any]:
        """The values of call(lab, item), in order. The first error ends it."""
        for result in self.lab.map(items, call, concurrency=self.concurrency):
            if result.error is not None:
                raise result.error
            yield result.value

    # ------------------------------------------------------------------ chat

    def chat_text(self, messages: Messages,
                  add_generation_prompt: bool = True) -> str:
        """The text of a chat, by the chat template of `tokenizer`, or by
        `chat_format`. Without a generation prompt the last message stays open,
        so that a continuation follows it."""
        if self.chat_format:
            text = self._format_chat(messages, add_generation_prompt)
        elif self.files is not None:
            text = self.files.render_chat(messages, add_generation_prompt)
        else:
            formats = ", ".join(self.lab.server_info().chat_formats)
            raise InvalidRequest(
                "chat: neither a chat template nor a chat format was given",
                remedy="give tokenizer=FOLDER with a chat template, or "
                f"chat_format= one of {formats}")
        if add_generation_prompt:
            return text
        last = str(messages[-1]["content"]).strip()
        return text[:text.rindex(last) + len(last)] if last in text else text

    def _format_chat(self, messages: Messages, prompt: bool) -> str:
        source = spec_pb2.Input()
        source.CopyFrom(Prompt(chat=messages, chat_format=self.chat_format
                               or "").to_proto())
        source.chat.add_generation_prompt = prompt
        ids = self.lab.tokenize(self.name, source).ids
        return self.lab.detokenize(self.name, ids, keep_special=True)

    # ---------------------------------------------------------------- scores

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]
              ) -> Iterator[tuple[float, bool]]:
        """(log-probability, whether it is the greedy one) of each continuation
        after its context, in order. A context that is too long loses its
        beginning."""
        batches: list[list[tuple[list[int], list[int]]]] = [[]]
        held = 0  # Tokens of the last batch.
        for pair in (self._cut(*pair) for pair in pairs):
            tokens = sum(map(len, pair))
            full = tokens > self.info.context_length  # For _score_full.
            if (full or len(batches[-1]) == self.batch_size
                    or held + tokens > _BATCH_TOKENS):
                batches.append([])
                held = 0
            batches[-1].append(pair)
            held += _BATCH_TOKENS if full else tokens
        for scores in self._map([b for b in batches if b], self._score_batch):
            yield from scores

    def _cut(self, context: list[int],
             continuation: list[int]) -> tuple[list[int], list[int]]:
        if not context or not continuation:
            raise InvalidRequest("score: a context or continuation has no "
                                 "tokens")
        if len(continuation) > self.max_length:
            raise InvalidRequest(
                f"score: a continuation has {len(continuation)} tokens, and "
                f"model '{self.name}' takes {self.max_length}")
        over = len(context) + len(continuation) - (self.max_length + 1)
        if over > 0:
            log.warning("the first %d of %d context tokens were cut off, because "
                        "the model takes %d", over, len(context),
                        self.max_length)
            context = context[over:]
        return context, continuation

    def _score_batch(self, lab: Lab, batch: list[tuple[list[int], list[int]]]
                     ) -> list[tuple[float, bool]]:
        if sum(map(len, batch[0])) > self.info.context_length:
            return [self._score_full(lab, *batch[0])]
        scores = lab.score(self.name, batch, arm=self.arm, totals_only=True,
                           priority=self.priority)
        if any(score.non_finite for score in scores):
            log.warning("model '%s' gave logits that are not finite",
                        self.name)
        return [(score.logprob, score.is_greedy) for score in scores]

    def _score_full(self, lab: Lab, context: list[int],
                    continuation: list[int]) -> tuple[float, bool]:
        """One token more than the model's context: the last one is predicted,
        and never read. Score would read it, so an analysis takes its place."""
        most = min(self.info.vocab_size, self.limits.max_list_entries)
        run = lab.analyze(
            self.name, [*context, *continuation[:-1]],
            arms=[self.arm or Arm.clean()], capture=Capture(off=True),
            logits=LogitsSpec(top_n=most), priority=self.priority)
        arm = run[0]
        assert arm.comparison is not None
        last = arm.logits[-1]
        listed = last.logprobs[last.ids == continuation[-1]]
        if not listed.size:
            raise InvalidRequest(
                f"max_length: the last token is none of the {most} that the "
                "server lists",
                remedy=f"give max_length={self.info.context_length - 1}")
        begin = len(context)
        total = float(arm.comparison.token_logprob[begin:].sum(dtype="float64")
                      + listed[0])
        greedy = list(arm.comparison.top1_id[begin - 1:]) == continuation
        return total, greedy

    # ------------------------------------------------------------- generation

    def generate(self, requests: Sequence[tuple[list[int], GenerateSpec]]
                 ) -> Iterator[Generated]:
        """Generates after each prompt, many at a time, in order. A prompt that
        leaves no room for its new tokens loses its beginning."""
        return self._map(requests, self._generate_one)

    def _generate_one(self, lab: Lab,
                      request: tuple[list[int], GenerateSpec]) -> Generated:
        prompt, spec = request
        room = self.info.context_length - spec.max_new_tokens
        if room < 1:
            raise InvalidRequest(
                f"max_new_tokens: {spec.max_new_tokens} leave no room for a "
                f"prompt in the context of {self.info.context_length}",
                field="max_new_tokens")
        return self.run_generation(lab, prompt[-room:], spec)

    def run_generation(self, lab: Lab, prompt: Any,
                       spec: GenerateSpec) -> Generated:
        """One generation on this connection."""
        stop = [spec.stop] if isinstance(spec.stop, str) else list(spec.stop)
        stop = [text for text in stop if text]
        short = [text for text in stop if len(text.encode())
                 <= self.limits.max_stop_string_bytes]
        fields = dataclasses.asdict(spec)
        fields["stop"] = short[:self.limits.max_stop_strings]
        done = lab.generate(self.name, prompt, arm=self.arm,
                            priority=self.priority, **fields).result()
        ids = [token.id for token in done.tokens]
        kept = ids[:-1] if done.stop_reason == "stop_token" else ids
        try:
            text = lab.detokenize(self.name, kept) if kept else ""
        except InvalidRequest:  # A token of the model that is none of text's.
            text = done.text
        for end in stop:
            text = text.split(end)[0]
        return Generated(text, ids, [token.text for token in done.tokens],
                         [token.logprob for token in done.tokens],
                         done.stop_reason, done.prompt_tokens or 0)
