"""lm-evaluation-harness on a qkscope server.

    qkscope-lm-eval --model_args server=127.0.0.1:7461,model=smollm2 \\
        --arm top_k:1 --tasks city --include_path tasks

    lm = QkscopeLM("127.0.0.1:7461", model="smollm2", arm="top_k:1")
    lm_eval.simple_evaluate(model=lm, tasks=["city"])

A clean arm gives the numbers of lm-eval's own `hf` model on the same weights in
f32. A disrupted arm scores a continuation as the server would have generated
it: rules choose by the context alone (the comment of ScoreRequest.arm).

lm-eval looks for no entry points, so its own command does not know this model.
Needs the extra "lm-eval".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union
from urllib.parse import unquote

from qkscope.arms import ArmLike
from qkscope.errors import InvalidRequest
from qkscope.evals.text_model import OPTIONS, TextModel
from qkscope.extras import need
from qkscope.lab import Lab, connect
from qkscope.spec import GenerateSpec

need("lm_eval", "lm-eval")

# pylint: disable=wrong-import-position
# Without this import first, registering a model hides lm-eval's own ones.
import lm_eval.models  # pylint: disable=unused-import
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

_SAMPLING = ("temperature", "top_p", "top_k", "seed")
_DEFAULT_BATCH = 32


@register_model("qkscope")
class QkscopeLM(TemplateLM):  # type: ignore[misc]
    """A served model, and an arm, for simple_evaluate.

    server: "HOST:PORT", or a Lab; default as in qkscope.connect. token,
      token_file, ca: also as there.
    model: default: the server's only one. arm: an Arm, or text as of
      `qkctl --arm`; default clean. lm-eval splits model_args at commas, so
      write %2C for one there.
    batch_size: pairs of one call (default 32); concurrency: calls at a time.
    tokenizer, chat_format, prefix_token_id, add_bos_token, max_length,
      priority: as in text_model.TextModel.
    max_gen_toks: where a task does not say.
    """

    def __init__(self, server: Union[str, Lab, None] = None,
                 model: Optional[str] = None, arm: Optional[ArmLike] = None, *,
                 token: Optional[str] = None, token_file: Optional[str] = None,
                 ca: Optional[str] = None, timeout: Optional[float] = None,
                 batch_size: Union[int, str, None] = None,
                 max_gen_toks: int = 256, max_batch_size: Any = None,
                 device: Any = None, **options: Any) -> None:
        super().__init__()
        # lm-eval sets these for every model; the server has its own.
        del max_batch_size, device
        _check_options(options)
        self.lab = server if isinstance(server, Lab) else connect(
            server, token=None if token is None else str(token),
            token_file=token_file, ca=ca, timeout=timeout)
        if isinstance(arm, str):
            arm = unquote(arm)
        self.text_model = TextModel(
            self.lab, model, arm=arm,
            batch_size=_batch_size(batch_size), **options)
        self.max_gen_toks = max_gen_toks

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any],
                            additional_config: Optional[dict[str, Any]] = None
                            ) -> QkscopeLM:
        """Model arguments win over lm-eval's own options."""
        return cls(**{**(additional_config or {}), **arg_dict})

    @classmethod
    def create_from_arg_string(cls, arg_string: str,
                               additional_config: Optional[dict[str, Any]]
                               = None) -> QkscopeLM:
        return cls.create_from_arg_obj(
            utils.simple_parse_args_string(arg_string), additional_config)

    # ------------------------------------------------- what lm-eval asks for

    @property
    def eot_token_id(self) -> int:
        return self.text_model.prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.text_model.prefix_token_id

    @property
    def max_length(self) -> int:
        return self.text_model.max_length

    @property
    def batch_size(self) -> int:
        return self.text_model.batch_size

    @property
    def tokenizer_name(self) -> str:
        info = self.text_model.info
        return f"qkscope__{info.name}__{info.tokenizer_sha256[:16]}"

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None,
                   **kwargs: Any) -> list[int]:
        return self.text_model.encode(string, add_special_tokens)

    def chat_template(self, chat_template: Union[bool, str] = False
                      ) -> Optional[str]:
        """What lm-eval writes beside its results."""
        if not chat_template:
            return None
        if self.text_model.files is not None and not (
                self.text_model.chat_format):
            return self.text_model.files.template
        return f"chat_format={self.text_model.chat_format}"

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]],
                            add_generation_prompt: bool = True) -> str:
        return self.text_model.chat_text(chat_history, add_generation_prompt)

    def get_model_info(self) -> dict[str, Any]:
        """Written into the results."""
        info, arm = self.text_model.info, self.text_model.arm
        return {"model_num_parameters": info.parameters,
                "model_dtype": info.compute_type,
                "model_sha": info.weights_sha256, "model_revision": "",
                "qkscope_arm": arm.name if arm is not None else "clean",
                "qkscope_server_version":
                    self.lab.server_info().version}

    def loglikelihood(self, requests: Sequence[Any],
                      disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        texts, alone = [], []
        for context, continuation in (request.args for request in requests):
            if context == "":
                alone.append(continuation)
            else:
                # As TemplateLM._encode_pair asks for them.
                texts += [context + continuation, context.rstrip()]
        self.text_model.prepare(texts)
        self.text_model.prepare(alone, False)
        try:
            results: list[tuple[float, bool]] = super().loglikelihood(
                requests, disable_tqdm)
            return results
        finally:
            self.text_model.forget()

    def _loglikelihood_tokens(self, requests: Sequence[Any],
                              disable_tqdm: bool = False,
                              **kwargs: Any) -> list[tuple[float, bool]]:
        for text, _, continuation in requests:
            if text is not None and not continuation:
                raise InvalidRequest(
                    f"loglikelihood: the continuation {text[1]!r} has no token "
                    f"of its own after {text[0][-40:]!r}")
        scores = self.text_model.score(
            [(list(context), list(continuation))
             for _, context, continuation in requests])
        results = []
        for (text, _, _), score in zip(requests, _progress(
                scores, len(requests), "loglikelihood", disable_tqdm)):
            results.append(score)
            if text is not None:  # None: a window of loglikelihood_rolling.
                self.cache_hook.add_partial("loglikelihood", text, score)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any],
                              disable_tqdm: bool = False) -> list[float]:
        texts = [request.args[0] for request in requests]
        self.text_model.prepare(texts)
        windows: list[Any] = []
        owners: list[int] = []
        for index, text in enumerate(texts):
            ids = self.tok_encode(text)
            for pair in utils.get_rolling_token_windows(
                    ids, prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length, context_len=1):
                windows.append((None, *utils.make_disjoint_window(pair)))
                owners.append(index)
        self.text_model.forget()
        totals = [0.0] * len(texts)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(
                windows, disable_tqdm)):
            totals[owner] += logprob
        for text, total in zip(texts, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: Sequence[Any],
                       disable_tqdm: bool = False) -> list[str]:
        contexts = [request.args[0] for request in requests]
        self.text_model.prepare(contexts)
        calls = []
        for context, arguments in (request.args for request in requests):
            ids = self.tok_encode(context) or [self.prefix_token_id]
            calls.append((ids, self._generation(arguments)))
        self.text_model.forget()
        texts = []
        for request, done in zip(requests, _progress(
                self.text_model.generate(calls), len(calls), "generate_until",
                disable_tqdm)):
            texts.append(done.text)
            self.cache_hook.add_partial("generate_until", request.args,
                                        done.text)
        return texts

    def _generation(self, arguments: dict[str, Any]) -> GenerateSpec:
        """A task's generation arguments. InvalidRequest: the server has nothing
        of this name."""
        given = normalize_gen_kwargs(arguments, self.max_gen_toks)
        stop, tokens = given.pop("until"), given.pop("max_gen_toks")
        sample = given.pop("do_sample")
        fields = {name: given.pop(name) for name in _SAMPLING if name in given}
        if given:
            raise InvalidRequest(
                f"generation: qkscope has no '{next(iter(given))}'",
                remedy="it has until, max_gen_toks, do_sample, "
                + ", ".join(_SAMPLING))
        if not sample:
            fields = {}
        elif "temperature" not in arguments:
            fields["temperature"] = 1.0
        return GenerateSpec(max_new_tokens=tokens, stop=stop, **fields)


def _check_options(options: dict[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise InvalidRequest(
                f"model_args: there is no '{name}'",
                remedy="there are server, model, arm, token, token_file, ca, "
                "timeout, batch_size, max_gen_toks, " + ", ".join(OPTIONS)
                + "; write %2C for a comma in arm")


def _batch_size(value: Union[int, str, None]) -> int:
    if value is None or str(value).startswith("auto"):
        return _DEFAULT_BATCH
    try:
        return int(value)
    except ValueError:
        raise InvalidRequest(f"batch_size: '{value}' is no number",
                             field="batch_size") from None


def _progress(items: Iterator[Any], total: int, what: str,
              disable: bool) -> Iterator[Any]:
    return iter(tqdm(items, total=total, disable=disable,
                     desc=f"Running {what} requests"))
