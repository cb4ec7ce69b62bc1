"""TransformerLens's bridge on a served model, beside its own bridge on the same
weights. Needs transformer-lens: tests/python/check_bridges.sh."""

import os
import pathlib
import signal
import tempfile
import unittest
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
import transformers
from bridge_models import BARE, ROOT, make_text_model
from processes import Server, demo_model
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.driver_protocol import (Driver,
                                                           validate_driver)

import qkscope
from qkscope import lens
from qkscope.lens import names

GOLDENS = ROOT / "tests/goldens"
# Both are f32: the largest difference of an activation, as a part of the
# largest one of its tensor, and of a log-probability.
RELATIVE, LOGPROB = 2e-5, 5e-4
# Families with own attention in transformers, and in TransformerLens.
FAMILIES = ["tiny_llama_gqa", "tiny_gpt2", "tiny_gpt_neo", "tiny_gpt_neox",
            "tiny_opt", "tiny_qwen2", "tiny_qwen3", "tiny_gemma2",
            "tiny_gemma3", "tiny_mistral", "tiny_phi3"]
IDS = torch.tensor([[1, 28, 23, 85, 12, 92, 6, 57, 35]])


def their_bridge(path, tokenizer, **source):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", **source)
    return TransformerBridge.boot_transformers(str(path), hf_model=model,
                                               tokenizer=tokenizer)


class LensCase(unittest.TestCase):

    def compare(self, mine, theirs):
        """(logits, cache) of both; returns how many tensors are the same. Where
        Q, K and V are one matrix, TransformerLens fires no rot_q and rot_k."""
        (logits, cache), (their_logits, their_cache) = mine, theirs
        self.assertLessEqual(
            (logits.log_softmax(-1) - their_logits.log_softmax(-1))
            .abs().max().item(), LOGPROB)
        seen = 0
        for name in cache.cache_dict:
            if "rot" in name and name not in their_cache.cache_dict:
                continue
            got, wanted = cache[name], their_cache[name]
            self.assertEqual(got.shape, wanted.shape, name)
            self.assertLessEqual((got - wanted).abs().max().item(),
                                 RELATIVE * wanted.abs().max().item(), name)
            seen += 1
        return seen


class FamiliesTest(LensCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_lens_")
        cls.addClassCleanup(folder.cleanup)
        cls.path = make_text_model(pathlib.Path(folder.name) / "text")
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(cls.path)
        cls.server = Server({"text": cls.path, "bare": BARE, **{
            family: GOLDENS / family for family in FAMILIES}})
        cls.addClassCleanup(cls.server.stop)
        cls.bridge = lens.boot("text", cls.server.address,
                               tokenizer=str(cls.path))
        cls.addClassCleanup(cls.bridge.close)
        cls.theirs = their_bridge(cls.path, cls.tokenizer)

    def test_it_is_a_driver(self):
        validate_driver(self.bridge._driver, after_bridge_construction=True)
        self.assertIsInstance(self.bridge._driver, Driver)

    def test_families(self):
        for family in FAMILIES:
            with self.subTest(family=family), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = their_bridge(GOLDENS / family, self.tokenizer)
                with lens.boot(family, self.server.address) as bridge:
                    seen = self.compare(bridge.run_with_cache(IDS),
                                        theirs.run_with_cache(IDS))
                    fused = family in ("tiny_phi3", "tiny_gpt_neox")
                    rotary = family not in ("tiny_gpt2", "tiny_gpt_neo",
                                            "tiny_opt")
                    layers = bridge.cfg.n_layers
                    self.assertEqual(
                        seen, layers * (11 if rotary and not fused else 9))

    def test_text_becomes_the_same_tokens(self):
        for text in ("the in", "<s>a", "a</s> the"):
            for bos in (None, True, False):
                self.assertEqual(
                    self.bridge.to_tokens(text, prepend_bos=bos).tolist(),
                    self.theirs.to_tokens(text, prepend_bos=bos).tolist())
        with lens.boot("text", self.server.address) as served:
            self.assertEqual(served.to_tokens("the in</s>").tolist(),
                             self.theirs.to_tokens("the in</s>").tolist())

    def test_a_notebook(self):
        """What one does with run_with_cache; the boot line is the argument."""
        def notebook(model):
            text = "the man in the"
            logits, cache = model.run_with_cache(text)
            loss = model(text, return_type="loss")
            rot_q, rot_k = cache["rot_q", 1], cache["rot_k", 1]
            head = (rot_q[0, :, 2] @ rot_k[0, :, 1].T) / model.cfg.d_head ** .5
            seen = {}
            model.run_with_hooks(text, fwd_hooks=[(
                "blocks.0.attn.hook_pattern",
                lambda value, hook: seen.setdefault(hook.name, value))])
            _, one = model.run_with_cache(
                model.to_tokens(text), names_filter="blocks.1.attn.hook_v",
                remove_batch_dim=True)
            _, some = model.run_with_cache(
                text, names_filter=lambda name: name.endswith("hook_q"),
                return_type=None)
            return (logits.argmax(-1).tolist(), loss, head.tril(),
                    *seen.values(), one["v", 1], cache["pattern", 1],
                    *(some["q", layer] for layer in range(2)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine, theirs = notebook(self.bridge), notebook(self.theirs)
        self.assertEqual(len(mine), len(theirs))
        self.assertEqual(mine[0], theirs[0])
        for got, wanted in zip(mine[1:], theirs[1:]):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)

    def test_batches(self):
        batch = torch.cat([IDS % 90, IDS.flip(1)])
        self.compare(self.bridge.run_with_cache(batch),
                     self.theirs.run_with_cache(batch))

    def test_an_intervention_is_that_of_a_hook(self):
        for hook, spec, change in (
                ("hook_v", {"op": "suppress"}, lambda v: v * 0),
                ("hook_rot_q", {"op": "scale", "factor": -2.0},
                 lambda v: v * -2)):
            name = names.hook_name(0, hook)
            mine = self.bridge.run_with_cache(IDS, intervene={name: spec})
            wanted = self.theirs.run_with_hooks(
                IDS, fwd_hooks=[(name, lambda v, hook, f=change: f(v))])
            self.assertLessEqual((mine[0] - wanted.log_softmax(-1))
                                 .abs().max().item(), LOGPROB)
            clean = self.bridge(IDS)
            self.assertGreater((mine[0] - clean).abs().max().item(), 0.01)
            torch.testing.assert_close(
                mine[1][name], change(self.theirs.run_with_cache(IDS)[1][name]),
                atol=1e-5, rtol=1e-5)

    def test_arms(self):
        lab = self.bridge._driver.lab
        run = lab.analyze("text", IDS[0].tolist(), arms=["top_k:1"],
                          compare=False, logits=97, capture=qkscope.Capture(
                              form="raw", stage="after"))
        logits, cache = self.bridge.run_with_cache(IDS, arm="top_k:1")
        torch.testing.assert_close(
            cache["rot_q", 1], torch.tensor(run[0].q.layer(1))[None],
            atol=0, rtol=0)
        self.assertEqual(logits[0, -1].argmax().item(), run[0].logits[0].ids[0])
        with lens.boot("text", lab, arm="top_k:1") as booted:
            torch.testing.assert_close(booted(IDS), logits, atol=0, rtol=0)
        lab.model("text")  # A Lab of the caller's stays open.

    def test_the_last_logits_alone(self):
        with lens.boot("text", self.server.address, logits="last") as bridge:
            logits = bridge(IDS)
            torch.testing.assert_close(logits[0, -1], self.bridge(IDS)[0, -1])
            self.assertTrue(torch.isneginf(logits[0, :-1]).all())
            with self.assertRaisesRegex(NotImplementedError, "loss"):
                bridge(IDS, return_type="loss")

    def test_a_server_that_lists_fewer_logits(self):
        config = self.path.parent / "few.conf"
        config.write_text("limits {max_list_entries: 40}")
        with Server({"text": self.path}, "--config", config) as server:
            with self.assertWarnsRegex(UserWarning, "lists 40 of 97"):
                bridge = lens.boot("text", server.address)
            with bridge:
                logits, whole = bridge(IDS), self.bridge(IDS)
                listed = torch.isfinite(logits)
                self.assertTrue((listed.sum(-1) == 40).all())
                torch.testing.assert_close(logits[listed], whole[listed])
                self.assertFalse(bridge._driver.provides_sequence_logits)

    def test_what_is_wrong_is_said_in_a_sentence(self):
        run, q = self.bridge.run_with_cache, names.hook_name(0, "hook_q")
        for call, part in (
                (lambda: lens.boot("nope", self.server.address), "'nope'"),
                (lambda: lens.boot("text", "127.0.0.1:1", retries=0),
                 "127.0.0.1:1"),
                (lambda: lens.boot("text", self.server.address, logits="x"),
                 "logits: 'x'"),
                (lambda: lens.boot("text", self.server.address, arm="x:1"),
                 "'x"),
                (lambda: run(IDS, names_filter="blocks.0.hook_resid_pre"),
                 "cannot fire 'blocks.0.hook_resid_pre'"),
                (lambda: run(IDS, names_filter="blocks.0.attn.hook_qq"),
                 "matched no hook points"),
                (lambda: run(IDS, names_filter="blocks.7.attn.hook_q"),
                 "matched no hook points"),
                (lambda: run(IDS, arm="nope:1"), "nope"),
                (lambda: run(IDS, intervene={q: {"op": "add", "value": 1}}),
                 "operation 'add'"),
                (lambda: run(IDS, stop_at_layer=1), "stop_at_layer"),
                (lambda: run(IDS, incl_bwd=True), "no backward pass"),
                (lambda: run(IDS, foo=1), "no 'foo'"),
                (lambda: run(IDS, max_new_tokens=3), "Lab.generate"),
                (lambda: run(torch.tensor([[1.5]])), "whole numbers"),
                (lambda: run(torch.tensor([[999]])), "999"),
                (lambda: run(IDS, attention_mask=IDS * 0), "no padding"),
                (lambda: run(torch.zeros(1, 300, dtype=int)), "256")):
            with self.subTest(part=part):
                with self.assertRaises(Exception) as error:
                    call()
                self.assertIn(part, str(error.exception))
                self.assertNotIn("\n", str(error.exception))
        with lens.boot("bare", self.server.address) as bare:
            bare.run_with_cache(IDS)  # Tokens need no tokenizer.
            with self.assertRaisesRegex(AssertionError, "Tokenizer"):
                bare.run_with_cache("text")

    def test_a_server_that_goes(self):
        server = Server({"text": self.path})
        self.addCleanup(server.stop, signal.SIGKILL)
        with lens.boot("text", server.address, retries=0) as bridge:
            bridge(IDS)
            server.stop(signal.SIGKILL)
            with self.assertRaises(qkscope.QkscopeError) as error:
                bridge(IDS)
            self.assertIn(server.address, str(error.exception))

    def test_cache_dict_is_theirs(self):
        with qkscope.connect(self.server.address) as lab:
            run = lab.analyze("text", IDS[0].tolist(), capture=qkscope.Capture(
                points=list(names.POINTS), form="raw", positions=range(9)))
        _, cache = self.theirs.run_with_cache(IDS)
        mine = run.cache_dict()
        self.assertEqual(len(mine), 2 * len(names.POINTS))
        for name, value in mine.items():
            torch.testing.assert_close(torch.tensor(value), cache[name],
                                       atol=1e-5, rtol=1e-5)


class SmolLm2Test(LensCase):

    def test_smollm2(self):
        path = demo_model()
        source = {"gguf_file": path.name}
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent,
                                                               **source)
        text = "The city of Paris is in"
        with Server({"smollm2": f"{path},compute=f32"}) as server, \
                lens.boot("smollm2", server.address,
                          tokenizer=tokenizer) as bridge:
            theirs = their_bridge(path.parent, tokenizer, **source)
            self.assertEqual(self.compare(bridge.run_with_cache(text),
                                          theirs.run_with_cache(text)), 330)


if __name__ == "__main__":
    unittest.main()
