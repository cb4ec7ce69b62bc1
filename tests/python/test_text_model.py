"""A served model as evaluation harnesses see one, without a harness."""

import contextlib
import io
import json
import logging
import pathlib
import re
import signal
import sys
import tempfile
import threading
import unittest
from unittest import mock

import numpy as np
from bridge_models import BARE, PIECES, make_text_model
from processes import Server, qkctl
from safetensors.numpy import load_file

import qkscope
from qkscope.evals import command
from qkscope.evals.text_model import TextModel
from qkscope.spec import GenerateSpec

GOLDEN = load_file(BARE / "golden.safetensors")
PROMPTS = json.loads((BARE / "golden.json").read_text())["prompts"]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


class TextModelCase(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_bridges_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        make_text_model(cls.folder / "bos")
        make_text_model(cls.folder / "plain", bos=False)
        make_text_model(cls.folder / "eos", bos=False, named_bos=False,
                        template=False)
        make_text_model(cls.folder / "short", context=24)
        cls.server = Server({"bare": BARE, **{
            name: cls.folder / name for name in ("bos", "plain", "eos",
                                                 "short")}})
        cls.addClassCleanup(cls.server.stop)
        cls.lab = qkscope.connect(cls.server.address)
        cls.addClassCleanup(cls.lab.close)

    def model(self, name="bos", **options):
        return TextModel(self.lab, name, **options)

    def assert_sentence(self, error, *parts):
        text = str(error.exception)
        for part in parts:
            self.assertIn(part, text)
        self.assertNotIn("\n", text)
        self.assertNotIn("Traceback", text)

    # ----------------------------------------------------------------- tokens

    def ids(self, *pieces):
        return [PIECES.index(piece) for piece in pieces]

    def test_tokens_are_those_of_a_tokenizer(self):
        model = self.model()
        self.assertEqual(model.encode("the"), [1, *self.ids("th", "e")])
        self.assertEqual(model.encode("the", False), self.ids("th", "e"))
        self.assertEqual(model.encode("a the</s>"),
                         [1, *self.ids("a", "Ġthe"), 2])
        self.assertEqual(model.encode("<s>a"), [1, *self.ids("a")])
        self.assertEqual(model.encode("<s>a", True), [1, 1, *self.ids("a")])
        self.assertEqual(model.encode(""), [1])
        plain = self.model("plain", add_bos_token=False)
        self.assertEqual(plain.encode("the"), self.ids("th", "e"))

    def test_many_texts_are_tokenised_at_a_time(self):
        model = self.model()
        texts = [f"the {i}" for i in range(40)] + ["the 3"]
        alone = [model.encode(text) for text in texts]
        model.prepare(texts)
        served, model.lab = model.lab, None  # No further call is made.
        self.assertEqual([model.encode(text) for text in texts], alone)
        model.forget()
        with self.assertRaises(AttributeError):
            model.encode("the 3")
        model.lab = served

    def test_the_prefix_is_bos_or_eos(self):
        self.assertEqual(self.model().prefix_token_id, 1)
        self.assertEqual(self.model(
            "plain", tokenizer=self.folder / "plain").prefix_token_id, 1)
        self.assertEqual(self.model(
            "eos", tokenizer=self.folder / "eos").prefix_token_id, 2)
        self.assertEqual(self.model("plain", prefix_token_id=7)
                         .prefix_token_id, 7)
        # The server tells both.
        self.assertEqual(self.model("plain").prefix_token_id, 1)
        self.assertEqual(self.model("eos").prefix_token_id, 2)
        self.assertFalse(self.model("eos").info.HasField("bos_token_id"))
        for name in ("bos", "plain", "eos"):
            self.assertEqual(list(self.model(name).info.eos_token_ids), [2])

    def test_the_prefix_with_an_older_server(self):
        def older(name):
            model = self.model(name)
            model.info.ClearField("bos_token_id")
            model.info.ClearField("eos_token_ids")
            return model

        self.assertEqual(older("bos").prefix_token_id, 1)
        with self.assertRaises(qkscope.InvalidRequest) as error:
            _ = older("plain").prefix_token_id
        self.assert_sentence(error, "prefix_token_id", "tokenizer=FOLDER")

    def test_qkctl_shows_the_tokens(self):
        for name, bos in (("bos", {"BOS": "1"}), ("plain", {"BOS": "1"}),
                          ("eos", {})):
            result = qkctl(self.server, "models", name)
            self.assertEqual(result.returncode, 0, result.stderr)
            rows = dict(re.findall("^(BOS|EOS) tokens? +(.+)$", result.stdout,
                                   re.MULTILINE))
            self.assertEqual(rows, {**bos, "EOS": "2"})

    # ----------------------------------------------------------------- scores

    def test_scores_are_those_of_the_logits(self):
        model = self.model(batch_size=3)
        pairs, wanted = [], []
        for name, prompt in sorted(PROMPTS.items()):
            tokens = prompt["ids"]
            logprobs = log_softmax(GOLDEN[f"{name}/prefill/logits"])
            for begin in range(1, len(tokens)):
                rest = tokens[begin:begin + 6]
                rows = logprobs[begin - 1:begin - 1 + len(rest)]
                pairs.append((tokens[:begin], rest))
                wanted.append((sum(row[t] for row, t in zip(rows, rest)),
                               all(row.argmax() == t
                                   for row, t in zip(rows, rest))))
        got = list(model.score(pairs))
        self.assertGreater(len(got), 20)
        np.testing.assert_allclose([g[0] for g in got],
                                   [w[0] for w in wanted], atol=2e-5, rtol=0)
        self.assertEqual([g[1] for g in got], [w[1] for w in wanted])

    def test_calls_hold_no_more_than_a_server_does_in_time(self):
        model = self.model(batch_size=100, concurrency=1)
        calls = []
        score = model._score_batch

        def counted(lab, batch):
            calls.append(sum(map(len, sum(batch, ()))))
            return score(lab, batch)

        model._score_batch = counted
        got = list(model.score([([5] * 200, [6] * 50)] * 60))
        self.assertEqual(len(got), 60)
        self.assertEqual(calls, [8000, 7000])

    def test_a_context_that_is_too_long_loses_its_beginning(self):
        short, large = self.model("short"), self.model("bos")
        self.assertEqual(short.max_length, 24)
        tokens = [3 + i * 7 % 90 for i in range(40)]
        with self.assertLogs("qkscope.evals", logging.WARNING):
            got = list(short.score([(tokens[:35], tokens[35:])]))
        # 25 tokens: the last one is predicted, and not read.
        wanted = list(large.score([(tokens[15:35], tokens[35:])]))
        np.testing.assert_allclose(got[0][0], wanted[0][0], atol=2e-5, rtol=0)
        self.assertEqual(got[0][1], wanted[0][1])

    def test_a_full_context_predicts_one_token_more(self):
        short, large = self.model("short", batch_size=2), self.model("bos")
        tokens = [3 + i * 11 % 90 for i in range(25)]
        pairs = [(tokens[:4], tokens[4:9]), (tokens[:1], tokens[1:]),
                 (tokens[:24], tokens[24:]), (tokens[:5], tokens[5:24])]
        # The greedy last token, too.
        first = self.lab.generate("bos", tokens[:24], max_new_tokens=1).result()
        pairs.append((tokens[:24], [first.tokens[0].id]))
        got, wanted = list(short.score(pairs)), list(large.score(pairs))
        np.testing.assert_allclose([g[0] for g in got], [w[0] for w in wanted],
                                   atol=2e-5, rtol=0)
        self.assertEqual([g[1] for g in got], [w[1] for w in wanted])
        self.assertTrue(got[-1][1])

    def test_a_disrupted_arm_has_one_token_less(self):
        model = self.model("short", arm="top_k:1")
        self.assertEqual(model.max_length, 23)
        tokens = [3 + i * 11 % 90 for i in range(25)]
        with self.assertLogs("qkscope.evals", logging.WARNING):
            got = list(model.score([(tokens[:20], tokens[20:])]))
        wanted = self.lab.score("short", [(tokens[1:20], tokens[20:])],
                                arm="top_k:1")
        self.assertEqual(got[0][0], wanted[0].logprob)
        self.assertNotEqual(got[0][0], self.lab.score(
            "short", [(tokens[1:20], tokens[20:])])[0].logprob)
        with self.assertRaises(qkscope.InvalidRequest) as error:
            self.model("short", arm="top_k:1", max_length=24)
        self.assert_sentence(error, "max_length: 24 is outside [1, 23]")

    def test_scores_that_are_impossible(self):
        model = self.model("short")
        for pair, part in ((([], [5]), "no tokens"), (([5], []), "no tokens"),
                           (([5], [6] * 25), "takes 24")):
            with self.subTest(part=part):
                with self.assertRaises(qkscope.InvalidRequest) as error:
                    list(model.score([pair]))
                self.assert_sentence(error, part)

    # ------------------------------------------------------------- generation

    def generated(self, model, prompt, **spec):
        return list(model.generate([(prompt, GenerateSpec(**spec))]))[0]

    def test_generation_ends_where_it_should(self):
        model = self.model("short")
        prompt = [1, *self.ids("a", "Ġthe")]
        plain = self.generated(model, prompt, max_new_tokens=9, ignore_eos=True)
        self.assertEqual(len(plain.ids), 9)
        self.assertEqual(plain.prompt_tokens, 3)
        whole = self.lab.detokenize("short", plain.ids)
        self.assertEqual(plain.text, whole)
        stop = whole[3:5]
        stopped = self.generated(model, prompt, max_new_tokens=9, stop=[stop],
                                 ignore_eos=True)
        self.assertEqual(stopped.text, whole.split(stop)[0])
        # What the server does not take is cut off here.
        many = [f"no{i}" for i in range(64)] + [stop]
        long = self.generated(model, prompt, max_new_tokens=9, stop=many,
                              ignore_eos=True)
        self.assertEqual(long.text, whole.split(stop)[0])
        ended = self.generated(model, prompt, max_new_tokens=9,
                               stop_token_ids=[plain.ids[2]], ignore_eos=True)
        self.assertEqual(ended.text, self.lab.detokenize(
            "short", plain.ids[:plain.ids.index(plain.ids[2])]))

    def test_a_prompt_that_is_too_long_loses_its_beginning(self):
        model = self.model("short")
        prompt = [3 + i * 7 % 90 for i in range(40)]
        done = self.generated(model, prompt, max_new_tokens=4)
        self.assertEqual(done.prompt_tokens, 20)
        self.assertEqual(done.ids, self.generated(
            model, prompt[-20:], max_new_tokens=4).ids)
        with self.assertRaises(qkscope.InvalidRequest) as error:
            self.generated(model, prompt, max_new_tokens=24)
        self.assert_sentence(error, "max_new_tokens: 24 leave no room")

    # ------------------------------------------------------------------ chats

    def test_chats(self):
        messages = [{"role": "system", "content": " be "},
                    {"role": "user", "content": "hi"}]
        with_files = self.model(tokenizer=self.folder / "bos")
        self.assertEqual(with_files.chat_text(messages),
                         "<s>system: be</s><s>user: hi</s><s>bot: ")
        self.assertEqual(with_files.chat_text(messages, False),
                         "<s>system: be</s><s>user: hi")
        named = self.model(chat_format="llama2")
        text = named.chat_text(messages)
        self.assertEqual(named.encode(text), self.lab.tokenize(
            "bos", qkscope.Prompt(chat=messages, chat_format="llama2")).ids)
        for options, parts in (
                ({}, ["chat_format= one of", "chatml"]),
                ({"chat_format": "nope"}, ["nope"]),
                ({"tokenizer": self.folder / "eos"}, ["no chat_template"])):
            with self.subTest(options=options):
                with self.assertRaises(qkscope.QkscopeError) as error:
                    self.model(**options).chat_text(messages)
                self.assert_sentence(error, *parts)

    # ----------------------------------------------------------------- errors

    def test_what_is_wrong_is_said_in_a_sentence(self):
        for name, options, part in (
                ("nope", {}, "model 'nope'"),
                (None, {}, "bare, bos"),
                ("bare", {}, "takes no text"),
                ("bos", {"arm": "nope:1"}, "nope"),
                ("bos", {"arm": "top_k"}, "top_k"),
                ("bos", {"tokenizer": self.folder / "gone"}, "gone"),
                ("bos", {"batch_size": 0}, "batch_size"),
                ("bos", {"max_length": 257}, "max_length")):
            with self.subTest(part=part):
                with self.assertRaises(qkscope.QkscopeError) as error:
                    self.model(name, **options)
                self.assert_sentence(error, part)

    def test_the_command_says_what_is_missing(self):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), \
                mock.patch.dict(sys.modules, {"lm_eval": None}), \
                mock.patch.object(sys, "argv", []):
            self.assertEqual(command.main(["--tasks", "x"]), 1)
        self.assertRegex(err.getvalue(),
                         r"\Aqkscope-lm-eval: this needs the package lm_eval "
                         r"\(.*\); pip install 'qkscope\[lm-eval\]'\n\Z")

    def test_a_server_that_goes_ends_it_in_a_sentence(self):
        server = Server({"bos": self.folder / "bos"})
        self.addCleanup(server.stop, signal.SIGKILL)
        with qkscope.connect(server.address, retries=0) as lab:
            model = TextModel(lab, batch_size=1, concurrency=2)
            scores = model.score([([3, 4], [5])] * 500)
            next(scores)
            server.stop(signal.SIGKILL)
            with self.assertRaises(qkscope.QkscopeError) as error:
                list(scores)
            self.assert_sentence(error, server.address)
        self.assertFalse([t for t in threading.enumerate()
                          if t.name.startswith("qkscope-map")])


if __name__ == "__main__":
    unittest.main()
