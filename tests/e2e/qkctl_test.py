"""Tests the real qkctl on a real server with a tiny model (no tokenizer)."""

import json
import tempfile
import unittest

import numpy as np
import safetensors
from safetensors.numpy import load_file

from processes import (TINY_MODEL, QkctlCase, Server, qkctl,
                       qkctl_on_terminal)

CONFIG = json.loads((TINY_MODEL / "config.json").read_text())
LAYERS = CONFIG["num_hidden_layers"]
HEADS = CONFIG["num_attention_heads"]
KV_HEADS = CONFIG["num_key_value_heads"]
HEAD_DIM = CONFIG["head_dim"]
IDS = [3, 1, 41, 59, 26, 53, 58, 9, 7, 93]
PROMPT = ["--model", "tiny", "--token-ids", ",".join(map(str, IDS))]
ARMS = ["--arm", "clean", "--arm", "top_k:1", "--arm", "bottom_k:1"]


class QkctlTest(QkctlCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server({"tiny": TINY_MODEL})
        cls.addClassCleanup(cls.server.stop)

    # -------------------------------------------------------------- doctor

    def test_doctor(self):
        with tempfile.TemporaryDirectory() as spool:
            server = Server({"tiny": TINY_MODEL}, f"--spool={spool}")
            self.addCleanup(server.stop)
            result = qkctl(server, "doctor", "--metrics",
                           server.metrics_address)
            self.assertEqual(result.returncode, 0, result.stdout)
            for found in ("ok +metrics port +takes connections",
                          "ok +self-test +16 tokens, 3 arms, ",
                          "ok +spool +a detached analysis came back whole",
                          "ok +kernels +.*matmul"):
                self.assertRegex(result.stdout, found)
            # It leaves no result behind.
            self.assertEqual(json.loads(qkctl(server, "queue", "--json").stdout)
                             .get("requests", []), [])
            server.stop()
            result = qkctl(server, "doctor")
            self.assertEqual(result.returncode, 3)
            self.assertRegex(result.stdout, "FAILED +server +UNAVAILABLE: ")

    # ------------------------------------------------------------- analyze

    def test_table(self):
        out = self.qkctl("analyze", *PROMPT, *ARMS, "--explain").stdout
        rows = [line.split() for line in out.splitlines()
                if line.split() and line.split()[0].isdigit()]
        self.assertEqual([row[0] for row in rows], list(map(str, range(LAYERS))))
        # Layer; Q and K with count, ratio, (head, dim), wavelength; V.
        self.assertEqual({len(row) for row in rows}, {1 + 4 + 4 + 2})
        for arm in ("clean", "top_k:1", "bottom_k:1"):
            self.assertRegex(out, rf"\n{arm} +-\d+\.\d+")
        self.assertIn(f"0/{len(IDS)}", out)
        self.assertIn("not causal", out)
        self.assertNotIn("\033", out)

    def test_colour_and_progress_are_for_terminals(self):
        command = ["analyze", *PROMPT, *ARMS]
        code, shown = qkctl_on_terminal(self.server, *command,
                                        environment={"NO_COLOR": ""})
        self.assertEqual(code, 0, shown)
        self.assertIn("\033[1m", shown)
        self.assertIn("\r\033[K", shown)
        self.assertIn("100 %", shown)
        code, shown = qkctl_on_terminal(self.server, *command,
                                        environment={"NO_COLOR": "1"})
        self.assertEqual(code, 0, shown)
        self.assertNotIn("\033[1m", shown)

    def test_all_arms_has_a_row_per_arm_and_layer(self):
        out = self.qkctl("analyze", *PROMPT, *ARMS, "--all-arms").stdout
        for arm in ("clean", "top_k:1", "bottom_k:1"):
            for layer in range(LAYERS):
                self.assertRegex(out, rf"\n{arm} +{layer} ")

    def test_every_arm_of_the_documented_list_runs(self):
        self.qkctl("analyze", *PROMPT, "--arm", "clean", "--arm", "top_k:1",
                   "--arm", "bottom_k:1", "--arm", "top_k:1,replace=zero",
                   "--arm", "threshold:5", "--arm", "top_k:1,point=pre_rope",
                   "--arm", "random_k:1,seed=7",
                   "--arm", "preset:rope_with_llm/llama",
                   "--arm", "named=explicit:0/1+1/3,layers=0")

    def test_json_lines(self):
        out = self.qkctl("analyze", *PROMPT, *ARMS, "--json").stdout
        events = [json.loads(line) for line in out.splitlines()]
        numbered = [e for e in events if "accepted" not in e]
        seqs = [e["seq"] for e in numbered]
        self.assertEqual(seqs, list(range(len(seqs))))
        self.assertEqual(numbered[0]["started"]["token_ids"], IDS)
        self.assertIn("finished", numbered[-1])
        layers = [e["layer"] for e in events if "layer" in e]
        self.assertEqual(len(layers), 3 * LAYERS * 3)
        for layer in layers:
            heads = HEADS if layer["point"] == "HOOK_ROT_Q" else KV_HEADS
            self.assertEqual(layer["shape"], [heads, HEAD_DIM])
            self.assertEqual(len(layer["values"]), heads * HEAD_DIM)

    def test_out_loads_in_safetensors(self):
        path = self.folder / "a.safetensors"
        self.qkctl("analyze", *PROMPT, *ARMS, "--out", path)
        self.assertEqual([p.name for p in self.folder.iterdir()], [path.name])
        tensors = load_file(path)
        expected = {
            f"{arm}/layer.{layer}.{point}": (heads, HEAD_DIM)
            for arm in ("clean", "top_k:1", "bottom_k:1")
            for layer in range(LAYERS)
            for point, heads in (("hook_rot_q", HEADS),
                                 ("hook_rot_k", KV_HEADS),
                                 ("hook_v", KV_HEADS))}
        self.assertEqual({k: v.shape for k, v in tensors.items()}, expected)
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata()
        axes = json.loads(metadata["axes"])
        self.assertEqual(axes["clean/layer.0.hook_rot_q"], ["head", "dim"])
        manifest = json.loads(metadata["manifest"])
        self.assertEqual(manifest["token_ids"], IDS)
        self.assertEqual(len(manifest["digests"]), len(expected))
        comparisons = {c["arm"]: c for c in json.loads(metadata["comparisons"])}
        self.assertEqual(len(comparisons["top_k:1"]["kl"]), len(IDS))

    def test_norms_are_those_of_the_raw_values(self):
        norms, raw = self.folder / "n", self.folder / "r"
        stages = ["--stage", "before_and_after", *ARMS]
        self.qkctl("analyze", *PROMPT, *stages, "--out", norms)
        self.qkctl("analyze", *PROMPT, *stages, "--form", "raw", "--out", raw)
        norms, raw = load_file(norms), load_file(raw)
        self.assertEqual(norms.keys(), raw.keys())
        self.assertIn("top_k:1/layer.1.hook_rot_k.after", raw)
        for name, values in raw.items():
            self.assertEqual(values.shape[0], len(IDS))
            self.assertTrue(np.isfinite(values).all(), name)
            expected = np.sqrt(np.sum(values.astype(np.float64) ** 2, axis=0))
            np.testing.assert_allclose(norms[name], expected, rtol=1e-6,
                                       err_msg=name)

    def test_decode_frames_have_their_step_in_the_name(self):
        path = self.folder / "d"
        self.qkctl("analyze", *PROMPT, "--max-new-tokens", 4, "--ignore-eos",
                   "--phase", "both", "--form", "norm_per_token", "--out", path)
        names = load_file(path).keys()
        self.assertIn("clean/layer.0.hook_v", names)
        self.assertIn("clean/layer.0.hook_v.decode.step.0", names)

    def test_half_precision_and_chosen_places(self):
        path = self.folder / "h"
        self.qkctl("analyze", *PROMPT, "--form", "raw", "--raw-dtype", "f16",
                   "--layers", 1, "--positions", "0,4-5", "--points", "hook_q",
                   "--heads", "1,3", "--out", path)
        tensors = load_file(path)
        self.assertEqual(list(tensors), ["clean/layer.1.hook_q"])
        values = tensors["clean/layer.1.hook_q"]
        self.assertEqual((values.dtype, values.shape),
                         (np.float16, (3, 2, HEAD_DIM)))

    def test_arms_file(self):
        arms = self.folder / "arms.txtpb"
        arms.write_text(
            'arms { name: "clean" }\n'
            'arms { name: "deep" disruptions { top_k { k: 2 } layers: 1 } }\n')
        out = self.qkctl("analyze", *PROMPT, "--arms", arms, "--all-arms").stdout
        self.assertRegex(out, r"\ndeep +1 ")

    # -------------------------------------------------------------- replay

    def test_replay(self):
        tensors, manifest = self.folder / "a.safetensors", self.folder / "a.json"
        self.qkctl("analyze", *PROMPT, *ARMS, "--arm",
                   "preset:rope_with_llm/qwen2", "--out", tensors, "--manifest",
                   manifest)
        for path in (tensors, manifest):
            self.assertIn("identical", self.qkctl("replay", path).stdout)
        content = json.loads(manifest.read_text())
        digest = content["digests"][0]
        digest["crc32c"] ^= 1
        manifest.write_text(json.dumps(content))
        out = self.qkctl("replay", manifest, expect=10).stdout
        self.assertIn(f"clean/layer.0.{digest['point'].lower()}", out)
        content["kernel_ids"] = ["of another machine"]
        manifest.write_text(json.dumps(content))
        out = self.qkctl("replay", manifest, expect=11).stdout
        self.assertIn("not comparable bit for bit", out)

    def test_replay_of_another_file(self):
        path = self.folder / "x"
        path.write_text("hello")
        self.qkctl("replay", path, expect=13)
        self.qkctl("replay", self.folder / "none", expect=13)

    # -------------------------------------------------------- other commands

    def test_models(self):
        self.assertRegex(self.qkctl("models").stdout, r"\ntiny +READY")
        details = json.loads(self.qkctl("models", "tiny", "--json").stdout)
        self.assertEqual(details["num_layers"], LAYERS)
        self.assertEqual(details["layers"][0]["num_kv_heads"], KV_HEADS)
        self.qkctl("models", "nonesuch", expect=5)

    def test_health(self):
        self.assertEqual(self.qkctl("health").stdout, "SERVING\n")
        self.assertEqual(self.qkctl("health", "--model", "tiny").stdout,
                         "SERVING\n")
        self.qkctl("health", "--model", "nonesuch", expect=5)

    def test_estimate_is_what_comes(self):
        estimate = json.loads(
            self.qkctl("estimate", *PROMPT, *ARMS, "--json").stdout)["estimate"]
        self.assertEqual(estimate["prompt_tokens"], len(IDS))
        out = self.qkctl("analyze", *PROMPT, *ARMS, "--json").stdout
        finished = json.loads(out.splitlines()[-1])["finished"]
        self.assertEqual(finished["streamed_bytes"], estimate["streamed_bytes"])

    def test_compare(self):
        out = self.qkctl("compare", *PROMPT, "--arm", "clean", "--arm",
                         "top_k:1").stdout
        self.assertIn("A: clean\nB: top_k:1\n", out)
        path = self.folder / "a"
        self.qkctl("analyze", *PROMPT, *ARMS, "--out", path)
        lines = self.qkctl("compare", path, path, "--json").stdout.splitlines()
        self.assertEqual(len(lines), LAYERS * 3)
        self.assertEqual({json.loads(line)["change"] for line in lines}, {0})

    def test_compare_with_a_control_of_query_heads(self):
        """The rule gives each query head its own K; clean has KV heads."""
        arms = ["--arm", "clean", "--arm",
                "preset:rope_with_llm/mistral/control"]
        out = self.qkctl("compare", *PROMPT, *arms).stdout
        self.assertEqual(out.count(" hook_rot_k* "), LAYERS)
        self.assertIn("KV heads of the other are repeated", out)
        for stage in ("before", "after"):
            lines = [json.loads(line) for line in self.qkctl(
                "compare", *PROMPT, *arms, "--stage", stage,
                "--json").stdout.splitlines()]
            self.assertEqual(len(lines), LAYERS * 3)
            for line in lines:
                repeated = stage == "after" and line["point"] == "HOOK_ROT_K"
                self.assertEqual(line.get("query_heads", False), repeated)
                if stage == "before" and line["layer"] == 0:
                    self.assertEqual(line["change"], 0)

    def test_the_table_says_what_it_counts(self):
        arms = ["--arm", "clean", "--arm",
                "c=preset:rope_with_llm/mistral/control", "--all-arms"]
        note = "massive values\nof K or V are counted per query head"
        self.assertNotIn(note, self.qkctl("analyze", *PROMPT, *arms).stdout)
        out = self.qkctl("analyze", *PROMPT, *arms, "--stage", "after").stdout
        self.assertIn(note, out)
        self.assertIn("\nRules of c give the query heads", out)

    def test_saved_arms_of_both_layouts_compare(self):
        path = self.folder / "a"
        self.qkctl("analyze", *PROMPT, "--arm", "clean", "--arm",
                   "c=preset:rope_with_llm/mistral/control", "--form", "raw",
                   "--stage", "after", "--heads", "1,2", "--out", path)
        tensors = load_file(path)
        clean = tensors["clean/layer.0.hook_rot_k.after"]
        control = tensors["c/layer.0.hook_rot_k.after"]
        group = HEADS // KV_HEADS
        self.assertEqual(clean.shape[1], len({1 // group, 2 // group}))
        self.assertEqual(control.shape[1], 2)
        repeated = clean[:, [1 // group - 1 // group, 2 // group - 1 // group]]
        want = (np.linalg.norm(repeated - control) / np.linalg.norm(repeated))
        lines = [json.loads(line) for line in self.qkctl(
            "compare", path, "--arm", "clean", "--arm", "c",
            "--json").stdout.splitlines()]
        got = [line["change"] for line in lines
               if line["layer"] == 0 and line["point"] == "HOOK_ROT_K"]
        self.assertEqual(len(got), 1)
        self.assertGreater(want, 0)
        self.assertAlmostEqual(got[0], want, places=5)

    def test_values_written_in_decode_are_counted(self):
        steps = 4  # the fifth token is not run
        dims = LAYERS * (HEADS + KV_HEADS)
        for phase, reselect, want in (
                ("prefill", "false", dims * len(IDS)),
                ("decode", "false", dims * steps),
                ("decode", "true", dims * steps),
                ("both", "false", dims * (len(IDS) + steps))):
            arm = f"x=top_k:1,phase={phase},reselect={reselect}"
            out = self.qkctl("analyze", *PROMPT, "--arm", "clean", "--arm", arm,
                             "--max-new-tokens", "5", "--ignore-eos").stdout
            row = next(line.split() for line in out.splitlines()
                       if line.startswith("x "))
            self.assertEqual(int(row[-1]), want, arm)

    def test_a_rule_of_generated_tokens_needs_some(self):
        result = self.qkctl("analyze", *PROMPT, "--arm", "top_k:1,phase=decode",
                            expect=4)
        self.assertIn("arms[0].disruptions[0].phase: DECODE acts on generated "
                      "tokens", result.stderr)

    def test_score(self):
        pairs = "".join(
            json.dumps({"context_ids": IDS[:n], "continuation_ids": IDS[n:]})
            + "\n" for n in (1, 4, 9))
        out = self.qkctl("score", "--model", "tiny", "--jsonl", "-", "--arm",
                         "clean", "--arm", "top_k:1", "--json",
                         text=pairs).stdout
        results = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([(r["arm"], r["pair"]) for r in results],
                         [(a, p) for a in ("clean", "top_k:1")
                          for p in range(3)])
        for result in results:
            score = result["result"]
            self.assertLess(score["logprob"], 0)
            self.assertAlmostEqual(score["logprob"],
                                   sum(score["token_logprobs"]), places=4)

    # -------------------------------------------------------- analyze-many

    def many(self, prompts, *arguments, expect=0):
        text = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
        return self.qkctl("analyze-many", "--model", "tiny", "--jsonl", "-",
                          *arguments, expect=expect, text=text).stdout

    def test_many_prompts_give_what_each_gives_alone(self):
        prompts = [{"prompt_ids": IDS[:1 + i % 10]} for i in range(40)]
        out = self.many(prompts, *ARMS, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(lines.pop(),
                         {"finished": {"prompts": 40, "failed": 0}})
        self.assertEqual(
            [line["id"] for line in lines if "started" in line["event"]],
            [str(i + 1) for i in range(40)])
        for n in (1, 7):
            got = [line["event"]["layer"] for line in lines
                   if line["id"] == str(n) and "layer" in line["event"]]
            alone = self.qkctl("analyze", "--model", "tiny", "--token-ids",
                               ",".join(map(str, IDS[:n])), *ARMS,
                               "--json").stdout
            want = [json.loads(line)["layer"] for line in alone.splitlines()
                    if "layer" in json.loads(line)]
            self.assertEqual(len(want), 3 * LAYERS * 3)
            key = lambda layer: (layer["arm"], layer["layer"], layer["point"])
            self.assertEqual(sorted(got, key=key), sorted(want, key=key))

    def test_many_prompts_aggregate(self):
        prompts = [{"prompt_ids": IDS[:n]} for n in (2, 5, 10)]
        out = self.many(prompts, "--aggregate", "--json")
        entries = [json.loads(line)["aggregate"] for line in out.splitlines()
                   if "aggregate" in json.loads(line)]
        self.assertEqual(len(entries), LAYERS * 3)
        single = {}
        for line in self.many(prompts, "--json").splitlines():
            layer = json.loads(line).get("event", {}).get("layer")
            if layer:
                single.setdefault((layer["layer"], layer["point"]),
                                  []).append(layer)
        for entry in entries:
            layers = single[entry["layer"], entry["point"]]
            values = np.array([layer["values"] for layer in layers])
            np.testing.assert_allclose(entry["mean"], values.mean(0), 1e-6)
            np.testing.assert_allclose(entry["variance"], values.var(0), 1e-4,
                                       1e-9)
            ratios = [layer["statistics"]["ratio"] for layer in layers]
            self.assertAlmostEqual(entry["ratio"]["mean"], np.mean(ratios), 5)

    def test_many_prompts_as_a_table(self):
        prompts = [{"id": "first", "prompt_ids": IDS},
                   {"id": "bad", "prompt_ids": [10**9]},
                   {"id": "last", "prompt_ids": IDS[:3]}]
        out = self.many(prompts, *ARMS, "--aggregate", expect=4)
        for name, tokens in (("first", len(IDS)), ("last", 3)):
            for arm in ("clean", "top_k:1", "bottom_k:1"):
                self.assertRegex(out, rf"\n{name} +{tokens} +{arm} +-\d")
        self.assertRegex(out, r"\nbad +failed: .*1000000000")
        self.assertRegex(out, r"\ntop_k:1 +0 +hook_rot_q +2 +\d")
        self.assertTrue(out.endswith("\n3 prompts, 1 failed\n"), out)

    def test_many_prompts_that_cannot_be_read(self):
        for text, why in (("{", "not a JSON object"),
                          ('{"prompt": 1}', 'must have "prompt"'),
                          ('{"prompt_ids": [1.5]}', "a list of token ids"),
                          ('{"id": 3.5, "prompt": "x"}', '"id" must be')):
            result = self.qkctl("analyze-many", "--model", "tiny", "--jsonl",
                                "-", expect=2, text="\n" + text)
            self.assertIn("--jsonl -:2: ", result.stderr)
            self.assertIn(why, result.stderr)
        self.qkctl("analyze-many", "--model", "tiny", expect=2)

    # ------------------------------------------------------------- the rest

    def test_generate(self):
        out = self.qkctl("generate", *PROMPT, "--max-new-tokens", 5,
                         "--ignore-eos", "--json").stdout
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(events), 5 + 1)
        self.assertEqual(events[-1]["finished"]["summary"]["generated_tokens"],
                         5)

    # -------------------------------------------------------------- refusals

    def test_exit_codes(self):
        good = ["analyze", *PROMPT]
        self.qkctl("analyze", "--model", "nonesuch", "--token-ids", "1",
                   expect=5)
        self.qkctl("analyze", "--model", "tiny", "--token-ids", "1000000",
                   expect=4)
        self.qkctl(*good, "--layers", LAYERS, expect=4)
        self.qkctl(*good, "--arm", f"top_k:{HEAD_DIM + 1}", expect=4)
        self.qkctl(*good, "--arm", "a=clean", "--arm", "a=clean", expect=4)
        self.qkctl("analyze", "--model", "tiny", "--prompt", "text", expect=4)
        self.qkctl(*good, "--arm", "topk:1", expect=2)
        self.qkctl(*good, "--nonsense", expect=2)
        self.qkctl(*good, "--out", self.folder / "no" / "such", expect=13)
        result = qkctl("127.0.0.1:1", *good)
        self.assertEqual(result.returncode, 3, result.stderr)

    def test_bad_flags(self):
        for flags, error in [
                (["--layer", "0"],
                 "unknown flag '--layer'; did you mean '--layers'?"),
                (["--zzzzzzzzzz"], "unknown flag '--zzzzzzzzzz'; see --help"),
                (["--layers", "0", "--layers=0"], "--layers is given twice"),
                (["--layers"], "--layers needs a value: LIST"),
                (["--json=perhaps"],
                 "--json: 'perhaps' is not true or false"),
                (["--top-n", "many"], "--top-n: 'many' is not a whole number")]:
            with self.subTest(flags):
                result = self.qkctl("analyze", *PROMPT, *flags, expect=2)
                self.assertEqual(result.stderr, f"qkctl: {error}\n"
                                 "See qkctl analyze --help\n")
        # A negative number is parsed as a value; the server refuses it.
        result = self.qkctl("analyze", *PROMPT, "--top-n", "-1", expect=4)
        self.assertIn("top_n", result.stderr)

    def test_errors_name_the_field(self):
        err = self.qkctl("analyze", *PROMPT, "--arm", "top_k:99",
                         expect=4).stderr
        self.assertIn("arms[0].disruptions[0].top_k.k", err)


if __name__ == "__main__":
    unittest.main()
