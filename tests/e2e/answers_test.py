"""Tests what users get of answers: values that are not finite, files, and long
lists for clients with gRPC's default limits."""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

import grpc
import numpy as np
from safetensors.numpy import load_file, save_file

from byte_tokenizer import byte_tokenizer
from processes import (BIN, PATIENCE_S, TINY_MODEL, QkctlCase, Server,
                       metrics, scratch_folder)
from stubs import analysis, analysis_grpc, spec

# Letters, and tokens that merge some of them.
TOKENIZER = byte_tokenizer(["a", "b", "c", "ab"], ["a b"])
TENSOR = "model.layers.1.self_attn.q_proj.weight"
ARMS = ["--arm", "clean", "--arm", "top_k:1"]
PROMPT = ["--token-ids", "3,1,41,59"]


class AnswersTest(QkctlCase):

    @classmethod
    def setUpClass(cls):
        folder = scratch_folder()
        cls.addClassCleanup(folder.cleanup)
        cls.models = pathlib.Path(folder.name)
        for name in ("good", "bad"):
            (cls.models / name).mkdir()
            for file in ("config.json", "model.safetensors"):
                shutil.copy(TINY_MODEL / file, cls.models / name / file)
            (cls.models / name / "tokenizer.json").write_text(
                json.dumps(TOKENIZER))
        file = cls.models / "bad" / "model.safetensors"
        tensors = load_file(file)
        tensors[TENSOR][3, 5] = np.nan
        save_file(tensors, file, metadata={"format": "pt"})
        cls.server = Server({name: cls.models / name
                             for name in ("good", "bad")})
        cls.addClassCleanup(cls.server.stop)

    # --------------------------------------------------------------- strict

    def test_unknown_fields_are_refused_when_strict(self):
        score = analysis.ScoreRequest(model="good", pairs=[analysis.ScorePair(
            context=spec.Input(text=b"a"),
            continuation=spec.Input(text=b"b"))])
        generate = analysis.GenerateRequest(
            model="good", input=spec.Input(text=b"a"),
            generate=spec.GenerateSpec(max_new_tokens=1))
        newer = b"\x98\x06\x01"  # Field 99, of a newer client, is 1.
        with grpc.insecure_channel(self.server.address) as channel:
            stub = analysis_grpc.AnalysisStub(channel)
            for call, request in ((stub.Score, score),
                                  (lambda r: list(stub.Generate(r)), generate)):
                request.MergeFromString(newer)
                self.assertTrue(call(request))
                request.strict = True
                with self.assertRaises(grpc.RpcError) as error:
                    call(request)
                self.assertEqual(error.exception.code(),
                                 grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn("unknown field 99 (strict is set)",
                              error.exception.details())

    # ------------------------------------------------------------ not finite

    def test_the_load_warns(self):
        warning = next(json.loads(line) for line in self.server.log
                       if "weights_not_finite" in line)
        self.assertEqual(warning["level"], "warn")
        self.assertEqual(warning["model"], "bad")
        self.assertIn(f"'{TENSOR}'[3, 5] = nan", warning["detail"])
        out = self.qkctl("models").stdout
        self.assertIn(f"1 weight not finite (NaN or infinite), the first: "
                      f"{TENSOR}[3, 5]", out)
        self.assertEqual(out.count("not finite"), 1)

    def test_on_request_the_server_does_not_start(self):
        result = subprocess.run(
            [BIN / "qkscoped", "--listen", "127.0.0.1:0", "--metrics-listen",
             "", "--check-weights", "fail", "--model",
             f"bad={self.models / 'bad'}"],
            capture_output=True, encoding="utf-8", timeout=PATIENCE_S,
            check=False)
        self.assertEqual(result.returncode, 78, result.stderr)
        self.assertIn(f"'{TENSOR}'[3, 5] = nan", result.stderr)

    def test_exit_codes(self):
        commands = {
            "generate": PROMPT,
            "score": ["--context", "ab", "--continuation", "ca"],
            "compare": [*PROMPT, *ARMS],
        }
        for name, flags in commands.items():
            with self.subTest(name):
                bad = self.qkctl(name, "--model", "bad", *flags, expect=14)
                self.assertIn("not finite", bad.stderr)
                allowed = self.qkctl(name, "--model", "bad", *flags,
                                     "--allow-non-finite")
                self.assertEqual(allowed.stdout, bad.stdout)
                self.assertEqual(allowed.stderr, bad.stderr)
                good = self.qkctl(name, "--model", "good", *flags)
                self.assertEqual(good.stderr, "")
                self.assertNotIn("nan", good.stdout)

    def test_an_analysis_shows_no_number_that_is_none(self):
        result = self.qkctl("analyze", "--model", "bad", *PROMPT, *ARMS)
        for arm in ("clean", "top_k:1"):
            self.assertRegex(
                result.stdout,
                rf"\n{arm} +nan\*? +nan +0/0 ")
            self.assertRegex(result.stderr, f"arm {arm}: not finite .* the KL "
                                            "of 4 positions")
        events = [json.loads(line) for line in self.qkctl(
            "analyze", "--model", "bad", *PROMPT, *ARMS,
            "--json").stdout.splitlines()]
        captured = {"clean": 0, "top_k:1": 0}
        for event in events:
            if "layer" in event:
                values = np.array([float(value) for value
                                   in event["layer"]["values"]])
                captured[event["layer"]["arm"]] += int(
                    (~np.isfinite(values)).sum())
            if "comparison" in event:
                self.assertEqual(event["comparison"]["kl"], ["NaN"] * 4)
                self.assertEqual(event["comparison"]["top1_id"], [-1] * 4)
        self.assertGreater(captured["clean"], 0)
        self.assertEqual(
            {arm["arm"]: arm["non_finite"]
             for arm in events[-1]["finished"]["arms"]},
            {arm: {"captured": count, "logits": 4, "kl": 4}
             for arm, count in captured.items()})

    # ----------------------------------------------------------------- files

    def test_outputs_are_tried_first(self):
        read_only = "/proc/a.safetensors"
        before = metrics(self.server)["qkscope_rpc_started_total"]
        for path in (self.folder / "none" / "a", self.folder, read_only):
            for flag in ("--out", "--manifest"):
                result = self.qkctl("analyze", "--model", "good", *PROMPT,
                                    flag, path, expect=13)
                self.assertIn(f"cannot write {path}", result.stderr)
                self.assertEqual(result.stdout, "")
        self.assertEqual(metrics(self.server)["qkscope_rpc_started_total"],
                         before)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_refused_request_leaves_the_old_file(self):
        path = self.folder / "a.safetensors"
        path.write_text("old")
        self.qkctl("analyze", "--model", "good", "--token-ids", "1000000",
                   "--out", path, expect=4)
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(os.listdir(self.folder), [path.name])

    # ----------------------------------------------------------- many prompts

    def test_ids_of_prompts_may_be_integers(self):
        path = self.folder / "p.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf{"id": 12345678901234567890, "prompt": "ab"}\r\n'
            b'{"id": "x", "prompt": "ca"}\r\n{"id": -3, "prompt": "c"}\r\n'
            b'{"of": {"id": 1}, "i\\u0064":1000000000000000019884624838656 ,'
            b' "prompt": "c"}\n')
        out = self.qkctl("analyze-many", "--model", "good", "--jsonl", path,
                         "--json").stdout
        ids = {json.loads(line).get("id") for line in out.splitlines()}
        self.assertEqual(ids, {12345678901234567890, "x", -3,
                               1000000000000000019884624838656, None})
        table = self.qkctl("analyze-many", "--model", "good", "--jsonl", path)
        self.assertIn("12345678901234567890 ", table.stdout)

    # ------------------------------------------------------------ long lists

    def test_a_default_client_gets_all_tokens(self):
        text = "ca" * (1 << 19)
        ids = []
        with grpc.insecure_channel(self.server.address) as channel:
            stub = analysis_grpc.AnalysisStub(channel)
            request = analysis.TokenizeRequest(
                model="good", input=spec.Input(text=text.encode()))
            while True:
                answer = stub.Tokenize(request)
                self.assertLessEqual(answer.ByteSize(), 4 << 20)
                self.assertEqual(answer.total_tokens, len(text))
                ids += [token.id for token in answer.tokens]
                if not answer.HasField("next_offset"):
                    break
                request.offset = answer.next_offset
        self.assertEqual(ids, [2, 0] * (1 << 19))
        path = self.folder / "text"
        path.write_text(text)
        out = self.qkctl("tokenize", "--model", "good", "--prompt-file", path,
                         "--ids").stdout
        self.assertEqual(out, ",".join(map(str, ids)) + "\n")


if __name__ == "__main__":
    unittest.main()
