"""The client against a real server with SmolLM2 and a tiny model: results
against other ways to the same numbers, and both clients against each other."""

import asyncio
import contextlib
import io
import os
import pathlib
import threading
import unittest

import numpy as np
import support
from documents import blocks
from processes import TINY_MODEL, Server, demo_model, qkctl, scratch_folder
from processes import wait_until

import qkscope
from qkscope import Arm, Capture, Prompt, Run, connect, connect_async
from qkscope.__main__ import main

TEXT = "The city of Paris is in"
ARMS = ["clean", "top_k:1", "control=bottom_k:1"]
IDS = [1, 2, 3, 4, 5]
_folder = scratch_folder()


def setUpModule():
    global SERVER, LAB  # pylint: disable=global-variable-undefined
    SERVER = Server({"smollm2": demo_model(), "tiny": TINY_MODEL}, "--spool",
                    pathlib.Path(_folder.name) / "spool")
    unittest.addModuleCleanup(_folder.cleanup)
    unittest.addModuleCleanup(SERVER.stop)
    LAB = connect(SERVER.address)
    unittest.addModuleCleanup(LAB.close)


def same_tensors(test, one, other):
    test.assertEqual([t.name for t in one.tensors],
                     [t.name for t in other.tensors])
    for a, b in zip(one.tensors, other.tensors):
        test.assertEqual(bytes(a.data), bytes(b.data), a.name)
        test.assertEqual(a.header, b.header)


class AnalysisTest(unittest.TestCase):

    def test_a_run(self):
        run = LAB.analyze("smollm2", TEXT, arms=ARMS, info=True)
        self.assertEqual(run.info.context_length, 8192)
        self.assertEqual(run.arms, ["clean", "top_k:1", "control"])
        self.assertEqual(run["clean"].q.norms.shape, (30, 9, 64))
        self.assertEqual(run["clean"].k.norms.shape, (30, 3, 64))
        self.assertEqual(run["clean"].k.group_size, 3)
        self.assertEqual([arm.kind for arm in run],
                         ["clean", "disrupted", "control"])
        self.assertEqual(run.baseline.name, "clean")
        self.assertEqual(run.token_ids, LAB.tokenize("smollm2", TEXT).ids)
        self.assertGreater(run["top_k:1"].comparison.mean_kl,
                           10 * run["control"].comparison.mean_kl)
        # Two tensors, 30 layers, a dim per head and token.
        self.assertEqual(run["top_k:1"].replaced, 30 * (9 + 3) * 6)
        for captured in run["clean"].captured:
            self.assertEqual(captured.massive().sum(axis=(1, 2)).tolist(),
                             captured.massive_count.tolist())
            ratios = captured.norms / captured.mean_of_heads[..., None]
            np.testing.assert_allclose(ratios.max(axis=(1, 2)),
                                       captured.ratio, rtol=1e-5)
            np.testing.assert_array_equal(captured.norms.max(axis=(1, 2)),
                                          captured.max)
        top = run["clean"].q.statistics[9].largest
        ratios = run["clean"].q.norms[9]
        ratios = ratios / ratios.mean(axis=1, keepdims=True)
        self.assertEqual((top.head, top.dim),
                         np.unravel_index(ratios.argmax(), ratios.shape))

    def test_norms_are_those_of_raw_values(self):
        def captured(form):
            return LAB.analyze("smollm2", TEXT, capture=Capture(
                form=form, layers=[0, 17], points=["hook_rot_q", "hook_k"]))
        raw, norms = captured("raw"), captured("norm_over_tokens")
        per_token = captured("norm_per_token")
        for point in ("hook_rot_q", "hook_k"):
            values = raw["clean"].point(point).raw.astype(np.float64)
            self.assertEqual(values.shape[:2], (2, 6))
            np.testing.assert_allclose(
                norms["clean"].point(point).norms,
                np.sqrt((values ** 2).sum(axis=1)), rtol=1e-6)
            np.testing.assert_allclose(
                per_token["clean"].point(point).per_token,
                np.sqrt((values ** 2).sum(axis=-1)), rtol=1e-6)
        with self.assertRaisesRegex(qkscope.InvalidRequest,
                                    'Capture\\(form="norm_over_tokens"\\)'):
            raw["clean"].q.norms  # pylint: disable=expression-not-assigned

    def test_raw_dtypes(self):
        def raw(dtype):
            return LAB.analyze("tiny", IDS, capture=Capture(
                form="raw", raw_dtype=dtype,
                raw_sha256=True))["clean"].q.raw
        exact = raw("f32")
        self.assertEqual(raw("f16").dtype, np.float16)
        np.testing.assert_array_equal(raw("f16"), exact.astype(np.float16))
        bits = raw("bf16").view(np.uint32)
        self.assertEqual((bits & 0xFFFF).max(), 0)
        np.testing.assert_allclose(raw("bf16"), exact, rtol=2 ** -8)

    def test_stages_phases_and_steps(self):
        run = LAB.analyze("tiny", IDS, arms=["top_k:1,replace=zero"],
                          generate=3, capture=Capture(
                              form="raw", phase="both",
                              stage="before_and_after"))
        arm = run[0]
        before, after = arm.q, arm.point("hook_rot_q", stage="after")
        changed = before.raw != after.raw
        self.assertEqual(int(changed.sum()), 2 * 5 * 4)
        self.assertEqual(np.abs(after.raw[changed]).max(), 0)
        steps = sorted({c.step for c in arm.captured if c.step is not None})
        self.assertEqual(steps, [0, 1])
        step = arm.point("hook_rot_q", phase="decode", step=1)
        self.assertEqual(step.raw.shape, (2, 1, 4, 8))
        self.assertEqual(len(arm.tokens), 3)
        self.assertEqual(arm.stop_reason, "length")
        with self.assertRaisesRegex(qkscope.NotFound, "it has hook_rot_k"):
            arm.point("hook_z")

    def test_pattern_and_cache_dict(self):
        run = LAB.analyze("tiny", IDS, capture=Capture(
            form="raw", points=["hook_pattern", "hook_rot_q"],
            positions=[0, 1, 2, 3, 4]))
        pattern = run["clean"].pattern.raw
        self.assertEqual(pattern.shape, (2, 5, 4, 5))
        np.testing.assert_allclose(pattern.sum(axis=-1), 1, rtol=1e-5)
        cache = run.cache_dict()
        self.assertEqual(cache["blocks.1.attn.hook_pattern"].shape,
                         (1, 4, 5, 5))
        np.testing.assert_array_equal(
            cache["blocks.1.attn.hook_rot_q"][0], run["clean"].q.layer(1))
        with self.assertRaisesRegex(qkscope.InvalidRequest, 'form="raw"'):
            LAB.analyze("tiny", IDS).cache_dict()

    def test_layers_come_in_order_and_are_those_of_the_result(self):
        with LAB.stream("tiny", IDS, arms=ARMS) as stream:
            seen = list(stream)
            run = stream.result()
        self.assertEqual([id(t) for t in seen], [id(t) for t in run.tensors])
        for arm in run.arms:
            layers = [t.layer for t in seen if t.arm == arm]
            self.assertEqual(layers, sorted(layers))
        same_tensors(self, run, LAB.analyze("tiny", IDS, arms=ARMS))

    def test_logits(self):
        run = LAB.analyze("smollm2", TEXT, logits=5, generate=1)
        (logits,) = run["clean"].logits
        self.assertEqual(logits.position, 5)
        self.assertEqual(logits.ids[0], run["clean"].tokens[0].id)
        self.assertAlmostEqual(logits.logprobs[0],
                               run["clean"].tokens[0].logprob, places=5)

    def test_progress(self):
        calls = []
        LAB.analyze("tiny", IDS, progress=lambda *call: calls.append(call))
        self.assertEqual(calls, [(1, 2), (2, 2)])
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            LAB.analyze("tiny", IDS, progress=True)
        self.assertIn("layers", shown.getvalue())


class TextTest(unittest.TestCase):

    def test_scores_are_the_comparisons_log_probabilities(self):
        run = LAB.analyze("smollm2", TEXT + " France")
        (score,) = LAB.score("smollm2", [(TEXT, " France")])
        self.assertAlmostEqual(score.logprob,
                               run["clean"].comparison.token_logprob[-1],
                               places=4)
        self.assertEqual(score.continuation_tokens, 1)
        ids = run.token_ids
        scores = LAB.score("smollm2", [(ids[:1], ids[1:])] * 70)
        self.assertEqual(len(scores), 70)
        np.testing.assert_allclose(
            scores[69].token_logprobs,
            run["clean"].comparison.token_logprob[1:], atol=1e-4)
        totals = LAB.score("smollm2", [(ids[:1], ids[1:])], totals_only=True)
        self.assertEqual(totals[0].logprob, scores[0].logprob)
        self.assertEqual(len(totals[0].token_logprobs), 0)

    def test_generation_is_that_of_an_analysis(self):
        run = LAB.analyze("smollm2", TEXT, arms=ARMS, generate=8)
        for arm in run:
            generation = LAB.generate("smollm2", TEXT, max_new_tokens=8,
                                      arm=Arm.parse(ARMS[run.arms.index(
                                          arm.name)]))
            tokens = [token.id for token in generation]
            self.assertEqual(tokens, [token.id for token in arm.tokens])
            self.assertEqual(generation.text, arm.text)
            self.assertEqual(generation.prompt_tokens, 6)
        with LAB.generate("smollm2", TEXT, max_new_tokens=8) as generation:
            next(iter(generation))
        self.assertFalse(generation.finished)

    def test_tokens(self):
        tokens = LAB.tokenize("smollm2", "Hello, Paris! é")
        self.assertEqual(b"".join(tokens.pieces), "Hello, Paris! é".encode())
        self.assertEqual(LAB.detokenize("smollm2", tokens.ids),
                         "Hello, Paris! é")
        self.assertEqual(tokens.offsets[0], (0, 5))
        chat = LAB.tokenize("smollm2", Prompt(
            chat=[{"role": "user", "content": "Hi"}], chat_format="chatml"))
        self.assertTrue(any(chat.special))

    def test_estimate(self):
        options = {"arms": ARMS, "capture": Capture(form="raw")}
        estimate = LAB.estimate("tiny", IDS, **options)
        run = LAB.analyze("tiny", IDS, **options)
        self.assertEqual(estimate.prompt_tokens, 5)
        self.assertEqual(estimate.streamed_bytes,
                         sum(len(t.data) for t in run.tensors))
        self.assertEqual(estimate.expanded.input, run.expanded.input)


class ManyTest(unittest.TestCase):
    PROMPTS = [[1, 2, 3], [4, 5], [97], [6, 7, 8, 9]]  # 97 is no token

    def test_many_are_as_one_by_one(self):
        results = list(LAB.analyze_many("tiny", self.PROMPTS, arms=ARMS))
        self.assertEqual([r.id for r in results], ["0", "1", "2", "3"])
        self.assertIsInstance(results[2].error, qkscope.InvalidRequest)
        for result, prompt in zip(results, self.PROMPTS):
            if result.error is None:
                same_tensors(self, result.run,
                             LAB.analyze("tiny", prompt, arms=ARMS))

    def test_an_aggregate_is_the_mean(self):
        aggregate = LAB.analyze_many("tiny", self.PROMPTS, aggregate=True)
        self.assertEqual(list(aggregate.errors), ["2"])
        runs = [LAB.analyze("tiny", prompt)["clean"].q.norms
                for prompt in self.PROMPTS if prompt != [97]]
        (entry,) = aggregate.select(point="hook_rot_q", layer=1)
        self.assertEqual(entry.count, 3)
        np.testing.assert_allclose(entry.mean,
                                   np.mean([run[1] for run in runs], axis=0),
                                   rtol=1e-5)
        np.testing.assert_allclose(entry.variance,
                                   np.var([run[1] for run in runs], axis=0),
                                   rtol=1e-3, atol=1e-6)

    def test_map_keeps_the_order_and_tells_errors(self):
        results = list(LAB.map(self.PROMPTS * 10, model="tiny", arms=ARMS,
                               concurrency=7))
        self.assertEqual([r.index for r in results], list(range(40)))
        self.assertEqual([r.prompt for r in results], self.PROMPTS * 10)
        for result in results:
            self.assertEqual(result.error is not None, result.prompt == [97])
        same_tensors(self, results[3].value, results[39].value)

    def test_map_calls_what_it_is_given(self):
        texts = [result.value for result in LAB.map(
            ["Hello", "Paris"], lambda lab, prompt: lab.generate(
                "smollm2", prompt, max_new_tokens=2).result().text)]
        self.assertEqual(texts, [LAB.generate(
            "smollm2", prompt, max_new_tokens=2).result().text
            for prompt in ("Hello", "Paris")])
        (result,) = LAB.map([0], lambda lab, prompt: 1 // prompt)
        self.assertIsInstance(result.error, ZeroDivisionError)

    def test_map_takes_no_more_than_it_may(self):
        taken, most = 0, 0

        def prompts():
            nonlocal taken
            for _ in range(60):
                taken += 1
                yield [1, 2]
        given = 0
        for _ in LAB.map(prompts(), model="tiny", concurrency=4):
            given += 1
            most = max(most, taken - given)
        self.assertEqual(given, 60)
        self.assertLessEqual(most, 2 * 4)

    def test_a_map_that_is_left_stops(self):
        began = []
        lock = threading.Lock()

        def call(lab, prompt):
            with lock:
                began.append(prompt)
            return lab.analyze("tiny", [1, 2])
        for result in LAB.map(range(10 ** 6), call, concurrency=4):
            if result.index == 5:
                break
        self.assertLess(len(began), 20)
        self.assertFalse(any(thread.name.startswith("qkscope-map")
                             for thread in threading.enumerate()))
        wait_until(lambda: not LAB.queue(), "requests that have no reader")


class KeptTest(unittest.TestCase):

    def test_detach_result_queue_cancel_usage(self):
        run = LAB.analyze("tiny", IDS, arms=ARMS)
        request_id = LAB.detach("tiny", IDS, arms=ARMS, client_tag="mine")
        kept = LAB.result(request_id)
        same_tensors(self, kept, run)
        self.assertEqual(kept.manifest.client_tag, "mine")
        self.assertIn(request_id, [r.request_id for r in LAB.queue()])
        self.assertGreaterEqual(LAB.usage()[0].kept_results, 1)
        self.assertFalse(LAB.cancel(request_id))
        with self.assertRaises(qkscope.NotFound):
            LAB.result(request_id)

    def test_the_server(self):
        self.assertEqual([m.name for m in LAB.models()], ["smollm2", "tiny"])
        self.assertEqual(LAB.model("smollm2").num_layers, 30)
        self.assertEqual(LAB.server_info().version, qkscope.__version__)
        LAB.health()
        LAB.health("tiny")
        with self.assertRaises(qkscope.NotFound):
            LAB.health("none")


class AsyncTest(unittest.TestCase):

    def test_the_twin_gets_the_same(self):
        asyncio.run(self.twin())

    async def twin(self):
        async with connect_async(SERVER.address) as lab:
            run = await lab.analyze("tiny", IDS, arms=ARMS, info=True)
            self.assertEqual(run.info.num_layers, 2)
            same_tensors(self, run, LAB.analyze("tiny", IDS, arms=ARMS))
            async with lab.stream("tiny", IDS) as stream:
                names = [tensor.name async for tensor in stream]
                self.assertEqual(len(names), len(
                    (await stream.result()).tensors))
            request_id = await lab.detach("tiny", IDS, arms=ARMS)
            same_tensors(self, await lab.result(request_id), run)
            self.assertFalse(await lab.cancel(request_id))
            results = [r async for r in lab.analyze_many(
                "tiny", ManyTest.PROMPTS)]
            self.assertEqual([r.error is None for r in results],
                             [True, True, False, True])
            mapped = [r async for r in lab.map(ManyTest.PROMPTS * 5,
                                               model="tiny", concurrency=3)]
            self.assertEqual([r.index for r in mapped], list(range(20)))
            self.assertEqual(sum(r.error is None for r in mapped), 15)
            aggregate = await lab.aggregate("tiny", ManyTest.PROMPTS)
            self.assertEqual(aggregate.entries[0].count, 3)
            generation = lab.generate("tiny", IDS, max_new_tokens=3)
            ids = [token.id async for token in generation]
            self.assertEqual(ids, [t.id for t in LAB.generate(
                "tiny", IDS, max_new_tokens=3).result().tokens])
            scores = await lab.score("tiny", [(IDS, [6])])
            self.assertEqual(scores[0].logprob,
                             LAB.score("tiny", [(IDS, [6])])[0].logprob)
            estimate = await lab.estimate("tiny", IDS)
            self.assertEqual(estimate.prompt_tokens, 5)
            tokens = await lab.tokenize("smollm2", "Hello")
            self.assertEqual(await lab.detokenize("smollm2", tokens.ids),
                             "Hello")
            self.assertEqual(len(await lab.models()), 2)
            self.assertEqual((await lab.model("tiny")).num_layers, 2)
            self.assertEqual((await lab.server_info()).version,
                             qkscope.__version__)
            await lab.health()
            await lab.queue()
            self.assertEqual(len(await lab.usage()), 1)


class BothClientsTest(unittest.TestCase):

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def arguments(self):
        return [word for arm in ARMS for word in ("--arm", arm)]

    def check(self, result):
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_files_both_ways(self):
        ours, theirs = self.folder / "a.safetensors", self.folder / "b"
        run = LAB.analyze("smollm2", TEXT, arms=ARMS)
        run.to_safetensors(ours)
        self.check(qkctl(SERVER, "analyze", "--model", "smollm2", "--prompt",
                         TEXT, *self.arguments(), "--out", theirs))
        read = Run.from_safetensors(theirs)
        same_tensors(self, read, run)
        self.assertEqual(read["top_k:1"].comparison.proto,
                         run["top_k:1"].comparison.proto)
        for field in ("digests", "expanded", "kernel_ids", "token_ids"):
            mine, other = (getattr(r.manifest, field) for r in (run, read))
            if field == "expanded":
                mine.strict = other.strict  # qkctl does not ask for it
            self.assertEqual(mine, other)
        self.assertIn("identical", self.check(qkctl(SERVER, "replay", ours)))
        self.check(qkctl(SERVER, "compare", ours, "--arm", "clean", "--arm",
                         "top_k:1"))
        again = self.folder / "c"
        read.to_safetensors(again)
        self.assertIn("identical", self.check(qkctl(SERVER, "replay", again)))
        same_tensors(self, Run.from_safetensors(again), run)

    def test_raw_files_and_manifests(self):
        path = self.folder / "a.safetensors"
        for dtype in ("f32", "f16", "bf16"):
            run = LAB.analyze("tiny", IDS, generate=2, capture=Capture(
                form="raw", raw_dtype=dtype, phase="both",
                stage="before_and_after"))
            run.to_safetensors(path)
            same_tensors(self, Run.from_safetensors(path), run)
            self.assertIn("identical",
                          self.check(qkctl(SERVER, "replay", path)))
        manifest = self.folder / "m.json"
        self.check(qkctl(SERVER, "analyze", "--model", "tiny", "--token-ids",
                         "1,2", "--manifest", manifest))
        self.assertEqual(Run.from_safetensors(manifest).token_ids, [1, 2])

    def main(self, command, *arguments):
        return self.call_main(command, "--server", SERVER.address, *arguments)

    @staticmethod
    def call_main(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(word) for word in arguments])
            except SystemExit as end:  # argparse's
                code = end.code
        return code, out.getvalue(), err.getvalue()

    def test_the_command_line_shows_what_qkctl_does(self):
        for arguments in (
                ["models"],
                ["analyze", "--model", "smollm2", "--prompt", TEXT,
                 *self.arguments()],
                ["analyze", "--model", "smollm2", "--prompt", TEXT,
                 "--all-arms", "--layers", "0-3,7", *self.arguments()],
                ["analyze", "--model", "tiny", "--token-ids", "1,2,3",
                 "--form", "raw"],
                ["analyze", "--model", "tiny", "--token-ids", "1,2,3",
                 "--max-new-tokens", "3", "--phase", "both"],
                ["analyze", "--model", "tiny", "--token-ids", "1-3",
                 "--no-compare", "--points", "hook_q,hook_z"]):
            with self.subTest(arguments):
                code, out, err = self.main(*arguments)
                self.assertEqual((code, err), (0, ""))
                self.assertEqual(out,
                                 self.check(qkctl(SERVER, *arguments)))

    def test_the_command_line_saves(self):
        ours, theirs = self.folder / "a", self.folder / "b"
        words = ["--model", "tiny", "--token-ids", "1,2,3"]
        self.assertEqual(self.main("analyze", *words, "--out", ours)[0], 0)
        self.check(qkctl(SERVER, "analyze", *words, "--out", theirs))
        same_tensors(self, Run.from_safetensors(ours),
                     Run.from_safetensors(theirs))

    def test_flags_may_stand_before_the_command(self):
        code, out, err = self.call_main("--server", SERVER.address, "models")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("smollm2", out)
        # The nearer one counts.
        code, _, _ = self.call_main("--server", "127.0.0.1:1", "models",
                                    "--server", SERVER.address)
        self.assertEqual(code, 0)

    def test_exit_codes_are_qkctls(self):
        for arguments in (
                ["analyze", "--model", "none", "--token-ids", "1"],
                ["analyze", "--model", "tiny", "--token-ids", "9999"],
                ["analyze", "--model", "tiny", "--prompt", "no tokenizer"],
                ["analyze", "--model", "tiny", "--token-ids", "1",
                 "--out", "/nowhere/a"],
                ["analyze", "--model", "tiny", "--token-ids", "1",
                 "--timeout", "0"],
                ["analyze", "--token-ids", "1"]):
            with self.subTest(arguments):
                code, out, err = self.main(*arguments)
                theirs = qkctl(SERVER, *arguments)
                self.assertEqual(code, theirs.returncode, err + theirs.stderr)
                self.assertEqual(out, "")
                if code != 2:  # argparse shows the usage
                    self.assertEqual(err.count("\n"), 1)


class ReadmeTest(unittest.TestCase):

    def test_what_it_shows_runs(self):
        text = (support.PACKAGE / "README.md").read_text("utf-8")
        namespace = {}
        shown = io.StringIO()
        with scratch_folder() as folder:
            self.addCleanup(os.chdir, os.getcwd())
            os.chdir(folder)
            for block in blocks(text, "python"):
                with contextlib.redirect_stdout(shown):
                    exec(block.replace("127.0.0.1:7461", SERVER.address),
                         namespace)
        namespace["lab"].close()
        self.assertIn("top_k.k: 999 exceeds head_dim 64", shown.getvalue())


if __name__ == "__main__":
    unittest.main()
