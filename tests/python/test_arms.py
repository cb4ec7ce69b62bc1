"""Arms, their names and their language; prompts and the other parts of
requests."""

import re
import unittest

import support
from google.protobuf import text_format

from qkscope import (Arm, Capture, GenerateSpec, InvalidRequest, LogitsSpec,
                     Prompt, Rule, StatisticsSpec)
from qkscope.spec import analyze_request, input_proto
from qkscope.v1 import spec_pb2 as spec

CPP_TEST = support.ROOT / "tests/client/qkctl/arm_spec_test.cc"
STRINGS = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'


def cpp_cases(name):
    """The pairs of strings in an array of the C++ test."""
    text = CPP_TEST.read_text("utf-8")
    body = text.split(f"{name}[] = {{", 1)[1].split("\n};", 1)[0]

    def joined(literals):
        parts = re.findall(r'"((?:[^"\\]|\\.)*)"', literals)
        return "".join(parts).encode().decode("unicode_escape")
    return [(joined(a), joined(b)) for a, b in
            re.findall(rf"\{{{STRINGS},\s*{STRINGS}\}}", body)]


class LanguageTest(unittest.TestCase):

    def test_the_cases_of_qkctl(self):
        cases = cpp_cases("kGoodCases")
        self.assertGreater(len(cases), 15)
        for text, expected in cases:
            with self.subTest(text):
                arm = text_format.Parse(expected, spec.Arm())
                self.assertEqual(Arm.parse(text).to_proto(), arm)

    def test_the_errors_of_qkctl(self):
        cases = cpp_cases("kBadCases")
        self.assertGreater(len(cases), 15)
        for text, message in cases:
            with self.subTest(text):
                with self.assertRaises(InvalidRequest) as caught:
                    Arm.parse(text)
                self.assertIn(f"arm '{text}'", str(caught.exception))
                self.assertIn(message, str(caught.exception))

    def test_an_arm_is_its_text(self):
        for arm in (Arm.clean(), Arm.top_k(1), Arm.bottom_k(3),
                    Arm.random_k(1), Arm.random_k(1, seed=7),
                    Arm.threshold(), Arm.threshold(2.5),
                    Arm.explicit([(0, 12), (3, 40)]),
                    Arm.preset("rope_with_llm/llama"),
                    Arm.preset("rope_with_llm/mistral/control", seed=3),
                    Arm.top_k(1, replace="zero"),
                    Arm.top_k(2, layers=[0, 1, 2, 3, 7], tensors="q",
                              stat_span=(1, None), reselect=True),
                    Arm.top_k(1, model="other")):
            with self.subTest(arm.name):
                text = arm.name
                if arm.rules:
                    text = ";".join(rule.spec for rule in arm.rules)
                    text += f",model={arm.model}" if arm.model else ""
                self.assertEqual(Arm.parse(text).to_proto(), arm.to_proto())

    def test_default_names(self):
        for arm, name in (
                (Arm.clean(), "clean"), (Arm.top_k(1), "top_k:1"),
                (Arm.control(), "control"), (Arm.bottom_k(1), "bottom_k:1"),
                (Arm.random_k(1, seed=7), "random_k:1,seed=7"),
                (Arm.threshold(5), "threshold:5"),
                (Arm.explicit([(0, 12), (3, 40)]), "explicit:0/12_3/40"),
                (Arm.top_k(1, layers=range(4)), "top_k:1,layers=0-3"),
                (Arm.preset("rope_with_llm/llama"),
                 "preset:rope_with_llm/llama")):
            self.assertEqual(arm.name, name)

    def test_kinds(self):
        for text, kind in (("clean", "clean"), ("clean,model=x", "clean"),
                           ("top_k:1", "disrupted"), ("top_k:0", "disrupted"),
                           ("threshold", "disrupted"),
                           ("explicit:0/1", "disrupted"),
                           ("bottom_k:1", "control"),
                           ("random_k:1", "control"),
                           ("bottom_k:1;top_k:1,tensors=v", "disrupted"),
                           ("preset:rope_with_llm/llama", "disrupted"),
                           ("preset:rope_with_llm/llama/control", "control")):
            self.assertEqual(Arm.parse(text).kind, kind, text)

    def test_rules_name_what_is_wrong(self):
        for call, message in (
                (lambda: Rule("topk", 1), "did you mean top_k"),
                (lambda: Rule("top_k"), "needs the number of dims"),
                (lambda: Rule("top_k", 1, seed=3), "only random_k"),
                (lambda: Rule("top_k", 1, lambda_=3), "only threshold"),
                (lambda: Rule("top_k", 1, phase="decod").to_proto(),
                 "did you mean decode"),
                (lambda: Arm("x" * 65), "longer than 64"),
                (lambda: Arm.top_k(1, tensors="x").to_proto(), "q, k, v")):
            with self.assertRaisesRegex(InvalidRequest, message):
                call()


class RequestTest(unittest.TestCase):

    def test_prompts(self):
        self.assertEqual(input_proto("Ä").text, "Ä".encode())
        self.assertEqual(input_proto(b"\xff").text, b"\xff")
        self.assertEqual(list(input_proto((1, 2)).token_ids.ids), [1, 2])
        chat = input_proto(Prompt(chat=[{"role": "user", "content": "Hi"}],
                                  chat_format="chatml"))
        self.assertEqual(chat.chat.messages[0].content, b"Hi")
        self.assertFalse(chat.HasField("add_special_tokens"))
        plain = input_proto(Prompt("x", add_special_tokens=False))
        self.assertTrue(plain.HasField("add_special_tokens"))

    def test_bad_prompts(self):
        for prompt, message in ((Prompt(), "exactly one"),
                                (Prompt("x", token_ids=[1]), "exactly one"),
                                (3.5, "give text, token ids"),
                                ("\ud800", "surrogate")):
            with self.assertRaisesRegex(InvalidRequest, message):
                input_proto(prompt)

    def test_parts_in_short(self):
        request = analyze_request(
            "m", [1], arms=["clean", Arm.top_k(1)], capture="hook_q",
            statistics=3.0, logits=5, generate=7, priority="batch")
        self.assertEqual(list(request.capture.points), [spec.HOOK_Q])
        self.assertEqual(getattr(request.statistics, "lambda"), 3.0)
        self.assertEqual(request.logits.top_n, 5)
        self.assertEqual(request.generate.max_new_tokens, 7)
        self.assertEqual([arm.name for arm in request.arms],
                         ["clean", "top_k:1"])
        self.assertEqual(request, analyze_request(
            "m", [1], arms=[Arm.clean(), "top_k:1"],
            capture=Capture(points=["hook_q"]),
            statistics=StatisticsSpec(lambda_=3.0), logits=LogitsSpec(5),
            generate=GenerateSpec(7), priority="batch"))

    def test_the_baseline(self):
        def baseline(arms, **options):
            return analyze_request("m", [1], arms=arms,
                                   **options).compare.baseline
        self.assertEqual(baseline(None), "clean")
        self.assertEqual(baseline(["top_k:1", "clean"]), "clean")
        self.assertEqual(baseline(["top_k:1", "bottom_k:1"]), "top_k:1")
        self.assertEqual(baseline(["clean", "top_k:1"], compare="top_k:1"),
                         "top_k:1")
        self.assertFalse(analyze_request("m", [1], compare=False
                                         ).HasField("compare"))

    def test_unset_stays_unset(self):
        self.assertEqual(Capture().to_proto(), spec.Capture())
        rule = Rule("threshold").to_proto()
        self.assertFalse(rule.threshold.HasField("lambda"))
        self.assertEqual(rule.WhichOneof("select"), "threshold")

    def test_wrong_names(self):
        with self.assertRaisesRegex(InvalidRequest, "did you mean hook_rot_q"):
            Capture(points="hook_rotq").to_proto()
        with self.assertRaisesRegex(InvalidRequest, "priority"):
            analyze_request("m", [1], priority="urgent")


if __name__ == "__main__":
    unittest.main()
