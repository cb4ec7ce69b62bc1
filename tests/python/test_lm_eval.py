"""lm-evaluation-harness on a served model, beside lm-eval's own `hf` on the same
weights. Needs lm-eval, torch and transformers: tests/python/check_bridges.sh."""

import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
import unittest
from unittest import mock

_SCRATCH = tempfile.TemporaryDirectory(prefix="qkscope_lm_eval_")
# Read when the packages are imported: nothing is fetched or kept.
os.environ.update(HF_HOME=_SCRATCH.name, HF_HUB_OFFLINE="1",
                  HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import torch
import transformers
from bridge_models import BARE, ROOT, make_text_model
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from processes import Server, demo_model
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

import qkscope
from qkscope.evals import command, lm_eval as bridge

TASKS = "tests/python/lm_eval_tasks"
# The largest difference of a log-likelihood from float64, in nats, and what
# each further token of a long one may add.
TOLERANCE, PER_TOKEN = 1e-4, 5e-6


def instances(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=0)
            for a in arguments]


def setUpModule():
    os.chdir(ROOT)
    torch.set_num_threads(2)


def tearDownModule():
    _SCRATCH.cleanup()


class HfCase:
    """Tests of one model; the classes below say which."""

    def results(self, lm, **more):
        manager = TaskManager(include_path=TASKS, include_defaults=False)
        return lm_eval.simple_evaluate(
            model=lm, tasks=["qkscope_cities", "qkscope_sums"],
            task_manager=manager, bootstrap_iters=0, **more)

    def compare(self, got, wanted, tokens=0):
        self.assertEqual(len(got), len(wanted))
        for (logprob, greedy), (exact, exact_greedy) in zip(got, wanted):
            # NaN fails.
            self.assertLessEqual(abs(logprob - exact),
                                 TOLERANCE + PER_TOKEN * tokens)
            self.assertEqual(greedy, exact_greedy)

    def compare_tasks(self, **more):
        mine, theirs = self.results(self.mine, **more), self.results(
            self.exact, **more)
        samples = mine["samples"]["qkscope_cities"]
        others = theirs["samples"]["qkscope_cities"]
        self.assertEqual(len(samples), more.get("limit", 8))
        for a, b in zip(samples, others):
            self.assertEqual(a["arguments"], b["arguments"])
            self.compare([r[0] for r in a["resps"]], [r[0] for r in b["resps"]])
        for a, b in zip(mine["samples"]["qkscope_sums"],
                        theirs["samples"]["qkscope_sums"]):
            self.assertEqual(a["arguments"], b["arguments"])
            self.assertEqual(a["resps"], b["resps"])
        for task in ("qkscope_cities", "qkscope_sums"):
            for metric in ("acc,none", "exact_match,none"):
                self.assertEqual(mine["results"][task].get(metric),
                                 theirs["results"][task].get(metric))
        return mine

    def test_both_tasks(self):
        mine = self.compare_tasks()
        # In f32, `hf` may be no further away than its own rounding takes it.
        single = self.results(HFLM(pretrained=self.single,
                                   tokenizer=self.tokenizer, batch_size=4))
        exact = self.results(self.exact)
        worst = worst_hf = 0.0
        for a, b, c in zip(*(r["samples"]["qkscope_cities"]
                             for r in (mine, single, exact))):
            for x, y, z in zip(a["resps"], b["resps"], c["resps"]):
                x, y, z = x[0][0], y[0][0], z[0][0]
                self.assertLessEqual(abs(x - y), TOLERANCE + abs(y - z))
                worst, worst_hf = max(worst, abs(x - y)), max(worst_hf,
                                                              abs(y - z))
        print(f"\n{type(self).__name__}: largest difference from hf in f32 "
              f"{worst:.2e}, of hf in f32 from float64 {worst_hf:.2e}")

    def test_few_shots_and_chats(self):
        self.compare_tasks(num_fewshot=2, limit=3)
        self.compare_tasks(apply_chat_template=True, num_fewshot=1, limit=3,
                           fewshot_as_multiturn=True,
                           system_instruction="Be brief.")

    PAIRS = [("", "Hello world"), ("The city of Paris is in ", "France and"),
             ("a\n\n", "\n b"), ("The same start", " here"),
             ("The same start", " there"), ("x ", "y z"),
             ("The capital", "ist the"), ("Answer:  4", "  5 ")]

    def special_pairs(self):
        bos, eos = self.tokenizer.bos_token, self.tokenizer.eos_token
        return [(f"{bos}user hi", f" there{eos}"), ("", f"{bos}x y"),
                (f"hi{eos}", "a"), (f"{bos}", "a b")]

    def test_pairs(self):
        requests = instances("loglikelihood", self.PAIRS + self.special_pairs())
        self.compare(self.mine.loglikelihood(requests),
                     self.exact.loglikelihood(requests))

    def test_contexts_that_are_too_long(self):
        requests = instances("loglikelihood", [
            ("The word is in the end. " * 30, " The end"),
            ("a " * 90, " in the end" * 5)])
        with self.length(64):
            self.compare(self.mine.loglikelihood(requests),
                         self.exact.loglikelihood(requests), 20)

    def test_rolling(self):
        texts = [("The quick brown fox jumps over the lazy dog. " * 12,),
                 ("short",), ("The end",)]
        requests = instances("loglikelihood_rolling", texts)
        for length in (None, 64, 17):
            with self.length(length):
                for got, wanted, text in zip(
                        self.mine.loglikelihood_rolling(requests),
                        self.exact.loglikelihood_rolling(requests), texts):
                    tokens = len(self.mine.tok_encode(text[0]))
                    self.assertLessEqual(abs(got - wanted),
                                         TOLERANCE + PER_TOKEN * tokens)

    def test_generations(self):
        requests = instances("generate_until", [
            ("The end of the word is", {"until": [" the", "\n"],
                                        "max_gen_toks": 12}),
            ("The quick brown fox " * 30, {"until": "in", "max_gen_toks": 9}),
            ("a", {"max_gen_toks": 5, "do_sample": False, "temperature": 1.0}),
            (f"{self.tokenizer.bos_token}a b", {"max_gen_toks": 6})])
        with self.length(96):
            self.assertEqual(self.mine.generate_until(requests),
                             self.exact.generate_until(requests))

    @contextlib.contextmanager
    def length(self, length):
        if length is None:
            yield
            return
        with mock.patch.object(self.mine.text_model, "max_length", length), \
                mock.patch.object(self.exact, "_max_length", length):
            yield


class TinyTest(HfCase, unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_bridges_")
        cls.addClassCleanup(folder.cleanup)
        cls.path = make_text_model(pathlib.Path(folder.name) / "tiny",
                                   context=512)
        cls.server = Server({"tiny": cls.path, "bare": BARE})
        cls.addClassCleanup(cls.server.stop)
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(cls.path)
        cls.single = transformers.AutoModelForCausalLM.from_pretrained(
            cls.path, dtype=torch.float32)
        cls.exact = HFLM(
            pretrained=transformers.AutoModelForCausalLM.from_pretrained(
                cls.path, dtype=torch.float64),
            tokenizer=cls.tokenizer, batch_size=4)
        cls.mine = bridge.QkscopeLM(cls.server.address, "tiny",
                                    tokenizer=cls.path, batch_size=5)

    def test_the_window_is_the_models_context(self):
        text = "The quick brown fox jumps over the lazy dog. " * 30
        requests = instances("loglikelihood_rolling", [(text,)])
        self.assertEqual(self.mine.max_length, self.exact.max_length)
        self.assertGreater(len(self.mine.tok_encode(text)), 1024)
        got = self.mine.loglikelihood_rolling(requests)[0]
        wanted = self.exact.loglikelihood_rolling(requests)[0]
        self.assertLessEqual(abs(got - wanted), TOLERANCE + PER_TOKEN * 2000)

    # ------------------------------------------------- what is said, and how

    def run_main(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
                mock.patch.object(sys, "argv", ["unused"]):
            code = command.main(list(map(str, arguments)))
        return code, out.getvalue(), err.getvalue()

    def said(self, err):
        """The line that is ours."""
        lines = [line for line in err.splitlines()
                 if line.startswith("qkscope-lm-eval: ")]
        self.assertEqual(len(lines), 1, err)
        self.assertNotIn("Traceback", err)
        return lines[0]

    def where(self, model="tiny"):
        return f"server={self.server.address},model={model}"

    def test_the_command(self):
        results = {}
        for arm in ("", "top_k:1", "top_k:2,replace=zero"):
            with tempfile.TemporaryDirectory() as folder:
                more = ("--arm", arm) if arm else ()
                code, out, err = self.run_main(
                    "--model_args", self.where(), "batch_size=3",
                    f"tokenizer={self.path}", "--tasks",
                    "qkscope_cities,qkscope_sums", "--include_path", TASKS,
                    "--log_samples", "--output_path", folder, *more)
                self.assertEqual(code, 0, err)
                self.assertIn("qkscope_cities", out)
                files = {p.name.split("_20")[0]: p
                         for p in pathlib.Path(folder).rglob("*.json*")}
                config = json.loads(files["results"].read_text())["config"]
                self.assertEqual(config["qkscope_arm"], arm or "clean")
                results[arm] = [
                    float(json.loads(line)["resps"][0][0][0]) for line in
                    files["samples_qkscope_cities"].read_text().splitlines()]
        clean = self.mine.loglikelihood(instances("loglikelihood", [
            ("Paris is a city in the country of", " France")]))
        self.assertAlmostEqual(results[""][0], clean[0][0], places=5)
        self.assertEqual(len({tuple(r) for r in results.values()}), 3)

    def test_arms_are_those_of_score(self):
        disrupted = bridge.QkscopeLM(self.server.address, "tiny",
                                     arm=qkscope.Arm.top_k(1))
        pairs = [("The city of", " Paris"), ("", "the end")]
        got = disrupted.loglikelihood(instances("loglikelihood", pairs))
        ids = [(disrupted.tok_encode("The city of"),
                disrupted.tok_encode(" Paris", False)),
               ([1], disrupted.tok_encode("the end", False))]
        wanted = disrupted.lab.score("tiny", ids, arm="top_k:1")
        self.assertEqual([g[0] for g in got], [w.logprob for w in wanted])

    def test_what_the_command_says_of_wrong_arguments(self):
        tasks = ("--tasks", "qkscope_sums", "--include_path", TASKS)
        here = ("--model_args", self.where())
        for arguments, code, part in (
                ((*here, "--tasks", "nope", "--include_path", TASKS), 2,
                 "nope"),
                ((*here, *tasks, "--arm", "nope:1"), 2, "nope"),
                ((*here, *tasks, "--arm"), 2, "--arm: needs an arm"),
                (("--model_args", "server=127.0.0.1:1", *tasks), 1,
                 "127.0.0.1:1"),
                ((*here, *tasks, "--gen_kwargs", "num_beams=2"), 2,
                 "num_beams")):
            with self.subTest(arguments=arguments):
                got, _, err = self.run_main(*arguments)
                self.assertIn(part, self.said(err))
                self.assertEqual(got, code)

    def test_what_the_class_says_of_wrong_arguments(self):
        for arguments, part in (
                (self.where() + ",batch=3", "there is no 'batch'"),
                (self.where() + ",batch_size=x", "'x' is no number"),
                (self.where() + ",arm=top_k:1,replace=zero", "%2C"),
                (self.where() + ",arm=top_k:999", "999"),
                (self.where("gone"), "model 'gone'"),
                (self.where("bare"), "takes no text")):
            with self.subTest(arguments=arguments):
                with self.assertRaises(qkscope.QkscopeError) as error:
                    bridge.QkscopeLM.create_from_arg_string(
                        arguments, {"batch_size": 1}).loglikelihood(
                            instances("loglikelihood", [("a", "b")]))
                self.assertIn(part, str(error.exception))
                self.assertNotIn("\n", str(error.exception))
        with self.assertRaisesRegex(qkscope.InvalidRequest,
                                    "'n' has no token of its own after 'i'"):
            self.mine.loglikelihood(instances("loglikelihood", [("i", "n")]))
        with self.assertRaisesRegex(qkscope.InvalidRequest, "chat template"):
            bridge.QkscopeLM(self.server.address, "tiny").apply_chat_template(
                [{"role": "user", "content": "hi"}])
        zero = bridge.QkscopeLM.create_from_arg_string(
            self.where() + ",arm=top_k:1%2Creplace=zero", {})
        self.assertEqual(zero.text_model.arm.name, "top_k:1,replace=zero")

    def test_a_server_that_goes(self):
        server = Server({"tiny": self.path})
        self.addCleanup(server.stop, signal.SIGKILL)
        gone = []
        whole = bridge.TextModel.score

        def score(model, pairs):
            for item in whole(model, pairs):
                if not gone:
                    gone.append(server.stop(signal.SIGKILL))
                yield item

        with mock.patch.object(bridge.TextModel, "score", score):
            code, _, err = self.run_main(
                "--model_args", f"server={server.address},batch_size=1",
                "--tasks", "qkscope_cities", "--include_path", TASKS)
        self.assertEqual(code, 1)
        self.assertIn(server.address, self.said(err))

    def test_other_models_stay_known(self):
        self.assertIs(get_model("hf"), HFLM)
        self.assertIs(get_model("qkscope"), bridge.QkscopeLM)

    def test_sampling_arguments(self):
        made = self.mine._generation({"until": ["x"], "max_gen_toks": 3,
                                      "do_sample": True, "top_p": 0.5,
                                      "seed": 4})
        self.assertEqual((made.temperature, made.top_p, made.seed), (1, 0.5, 4))
        greedy = self.mine._generation({"do_sample": False, "temperature": 0.7,
                                        "top_p": 0.5})
        self.assertEqual((greedy.temperature, greedy.top_p,
                          greedy.max_new_tokens), (0, 1, 256))


class SmolLm2Test(HfCase, unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        path = demo_model()
        cls.server = Server({"smollm2": f"{path},compute=f32"})
        cls.addClassCleanup(cls.server.stop)
        source = {"pretrained_model_name_or_path": path.parent,
                  "gguf_file": path.name}
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        # The model's own. transformers makes a plain ByteLevel of a GGUF file's.
        cls.tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        cls.single = transformers.AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32)
        cls.exact = HFLM(
            pretrained=transformers.AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32).double(),
            tokenizer=cls.tokenizer, batch_size=4)
        files = pathlib.Path(_SCRATCH.name) / "smollm2"
        files.mkdir()
        (files / "tokenizer_config.json").write_text(json.dumps({
            name: getattr(cls.tokenizer, name)
            for name in ("bos_token", "eos_token", "chat_template")}))
        cls.mine = bridge.QkscopeLM(cls.server.address, tokenizer=files)


if __name__ == "__main__":
    unittest.main()
