"""Inspect evaluations on a served model. Needs inspect_ai, and qkscope as an
installed package: tests/python/check_bridges.sh."""

import asyncio
import json
import os
import pathlib
import signal
import tempfile
import unittest

import numpy as np
from bridge_models import BARE, make_text_model
from inspect_ai import Task, eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import (ChatMessageAssistant, ChatMessageSystem,
                              ChatMessageUser, GenerateConfig, get_model)
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message
from processes import Server, demo_model

import qkscope
from qkscope.evals import activations


class InspectTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_inspect_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        make_text_model(cls.folder / "tiny")
        make_text_model(cls.folder / "short", context=16)
        cls.server = Server({"tiny": cls.folder / "tiny", "bare": BARE,
                             "short": cls.folder / "short"})
        cls.addClassCleanup(cls.server.stop)
        cls.lab = qkscope.connect(cls.server.address)
        cls.addClassCleanup(cls.lab.close)

    def model(self, name="tiny", **args):
        return get_model(f"qkscope/{name}", memoize=False,
                         server=self.server.address, **args)

    def ask(self, model, messages, **config):
        async def call():
            async with model:
                return await model.generate(messages,
                                            config=GenerateConfig(**config))
        return asyncio.run(call())

    def evaluate(self, model, samples, solver, **more):
        return inspect_eval(
            Task(dataset=samples, solver=solver, scorer=includes()),
            model=model, display="none", log_dir=str(self.folder / "logs"),
            log_format="json", **more)[0]

    def test_an_evaluation(self):
        chat = [{"role": "system", "content": "be"},
                {"role": "user", "content": "hi the"}]
        prompt = self.lab.tokenize(
            "tiny", qkscope.Prompt(chat=chat, chat_format="llama2"))
        for arm in (None, "top_k:1"):
            wanted = self.lab.generate("tiny", prompt.ids, arm=arm,
                                       max_new_tokens=8).result()
            text = self.lab.detokenize("tiny", [t.id for t in wanted.tokens])
            log = self.evaluate(
                "qkscope/tiny", [Sample(input="hi the", target=text),
                                 Sample(input="hi a", target="never seen")],
                [system_message("be"), generate()], max_tokens=8,
                logprobs=True,
                model_args={"server": self.server.address,
                            "chat_format": "llama2",
                            "activations": "1:rot_q 0:pattern",
                            **({"arm": arm} if arm else {})})
            self.assertEqual(log.status, "success", log.error)
            self.assertEqual(log.results.scores[0].metrics["accuracy"].value,
                             0.5)
            output = log.samples[0].output
            self.assertEqual(output.completion, text)
            self.assertEqual(output.stop_reason, "max_tokens")
            self.assertEqual(output.metadata["arm"], arm or "clean")
            self.assertEqual(
                [entry.logprob for entry in output.choices[0].logprobs.content],
                [token.logprob for token in wanted.tokens])
            self.assertEqual((output.usage.input_tokens,
                              output.usage.output_tokens),
                             (len(prompt.ids), 8))
            self.check_activations(output.metadata, prompt.ids, arm)

    def check_activations(self, metadata, prompt, arm):
        run = self.lab.analyze(
            "tiny", prompt, arms=[arm or "clean"], capture=qkscope.Capture(
                points=["hook_rot_q", "hook_pattern"], form="raw",
                positions=range(len(prompt)),
                stage="after" if arm else "before"))
        arrays = activations.decode(metadata)
        self.assertEqual(sorted(arrays), ["0:pattern", "1:rot_q"])
        np.testing.assert_array_equal(
            arrays["1:rot_q"], run[0].point("hook_rot_q").layer(1))
        np.testing.assert_array_equal(
            arrays["0:pattern"],
            run[0].point("hook_pattern").layer(0).transpose(1, 0, 2))
        self.assertEqual(arrays["0:pattern"].shape,
                         (4, len(prompt), len(prompt)))
        json.dumps(metadata)

    def test_norms_as_activations(self):
        model = self.model(activations=["0:k", "blocks.1.attn.hook_v"],
                           activations_form="norm_over_tokens")
        arrays = activations.decode(self.ask(model, "hi", max_tokens=1).metadata)
        self.assertEqual({key: value.shape for key, value in arrays.items()},
                         {"0:k": (2, 8), "1:v": (2, 8)})

    def test_chats_by_a_template(self):
        model = self.model(tokenizer=str(self.folder / "tiny"))
        for messages, text in (
                ([ChatMessageSystem(content="be"), ChatMessageUser(content="a")],
                 "<s>system: be</s><s>user: a</s><s>bot: "),
                ([ChatMessageUser(content="a"),
                  ChatMessageAssistant(content="the in")],
                 "<s>user: a</s><s>assistant: the in")):
            ids = self.lab.tokenize("tiny", qkscope.Prompt(
                text, parse_special=True, add_special_tokens=False)).ids
            wanted = self.lab.generate("tiny", ids, max_new_tokens=5).result()
            output = self.ask(model, messages, max_tokens=5)
            self.assertEqual(output.usage.input_tokens, len(ids))
            self.assertEqual(output.completion, self.lab.detokenize(
                "tiny", [t.id for t in wanted.tokens]))
            model = self.model(tokenizer=str(self.folder / "tiny"))

    def test_options_of_a_generation(self):
        def tokens(**config):
            return self.ask(self.model(), "a the", max_tokens=12, logprobs=True,
                            **config)
        def served(**options):
            prompt = self.lab.tokenize("tiny", "a the").ids
            return self.lab.generate("tiny", prompt, max_new_tokens=12,
                                     **options).result()
        for options in ({"temperature": 0.9, "seed": 3},
                        {"temperature": 0.9, "seed": 4, "top_k": 5},
                        {"temperature": 1.2, "seed": 4, "top_p": 0.5}):
            self.assertEqual(
                [e.token for e in
                 tokens(**options).choices[0].logprobs.content],
                [t.text for t in served(**options).tokens])
        whole = tokens().completion
        stop = whole[3:5]
        stopped = tokens(stop_seqs=[stop])
        self.assertEqual(stopped.completion, whole.split(stop)[0])
        self.assertEqual(stopped.stop_reason, "stop")
        full = self.ask(self.model("short"), "a the", max_tokens=40)
        self.assertEqual(full.stop_reason, "model_length")
        self.assertEqual(full.usage.total_tokens, 16)
        over = self.ask(self.model("short"), "a b c d e f g h i j k l m n")
        self.assertEqual(over.stop_reason, "model_length")
        self.assertIn("context is 16", over.error)

    def assert_says(self, part, call):
        with self.assertRaises(qkscope.QkscopeError) as error:
            call()
        self.assertIn(part, str(error.exception))
        self.assertNotIn("\n", str(error.exception))

    def test_what_is_wrong_is_said_in_a_sentence(self):
        for name, args, part in (
                ("nope", {}, "model 'nope'"),
                ("bare", {}, "takes no text"),
                ("tiny", {"arm": "nope:1"}, "nope"),
                ("tiny", {"activations": "3:resid_pre"}, "KIND is one of"),
                ("tiny", {"activations_form": "mean"}, "'mean'"),
                ("tiny", {"armm": "clean"}, "'armm'")):
            with self.subTest(args=args):
                self.assert_says(part, lambda: self.model(name, **args))
        chat = [ChatMessageSystem(content="be"), ChatMessageUser(content="a")]
        for args, messages, config, part in (
                ({}, chat, {}, "chat_format"),
                ({"chat_format": "nope"}, chat, {}, "nope"),
                ({}, "a", {"frequency_penalty": 0.5}, "frequency_penalty"),
                ({}, "a", {"logprobs": True, "top_logprobs": 5},
                 "top_logprobs"),
                ({"activations": "9:q"}, "a", {"max_tokens": 1}, "layers")):
            with self.subTest(part=part):
                self.assert_says(part, lambda: self.ask(
                    self.model(**args), messages, **config))

    def test_a_server_that_goes_fails_the_sample(self):
        server = Server({"tiny": self.folder / "tiny"})
        self.addCleanup(server.stop, signal.SIGKILL)
        model = get_model("qkscope/tiny", memoize=False, server=server.address)
        server.stop(signal.SIGKILL)
        log = self.evaluate(model, [Sample(input="a", target="b")],
                            [generate()])
        self.assertEqual(log.status, "error")
        self.assertIn(server.address, log.error.message)

    def test_smollm2(self):
        with Server({"smollm2": demo_model()}) as server:
            log = self.evaluate(
                "qkscope/smollm2",
                [Sample(input="What is the capital of France?",
                        target="Paris"),
                 Sample(input="Say only the word: yes", target="yes"),
                 Sample(input="What is the capital of Peru?", target="Lima")],
                [generate()], max_tokens=24, model_args={
                    "server": server.address, "chat_format": "chatml"})
            self.assertEqual(log.status, "success", log.error)
            print("\nSmolLM2:", [s.output.completion for s in log.samples])
            self.assertIn("Paris", log.samples[0].output.completion)


if __name__ == "__main__":
    os.environ.setdefault("INSPECT_DISPLAY", "none")
    unittest.main()
