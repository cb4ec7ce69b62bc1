"""TransformerLens's names, shapes and interventions on a served model, without
TransformerLens: test_lens.py has that."""

import json
import unittest

import numpy as np
from bridge_models import ROOT
from processes import Server
from safetensors.numpy import load_file

import qkscope
from qkscope.lens import interventions, names

IDS = [1, 28, 23, 85, 12, 92, 6, 57, 35, 74, 65, 76, 40]
FAMILIES = ["tiny_llama_gqa", "tiny_gpt2", "tiny_gemma3"]


class NamesTest(unittest.TestCase):

    def test_names_map_one_to_one(self):
        for point in names.POINTS:
            self.assertEqual(names.resolve(names.hook_name(17, point)),
                             (17, point))
        self.assertEqual(names.resolve("blocks.2.attn.q.hook_out"),
                         (2, "hook_q"))
        self.assertEqual(names.resolve("blocks.2.attn.o.hook_in"),
                         (2, "hook_z"))
        for other in ("blocks.2.hook_resid_pre", "blocks.x.attn.hook_q",
                      "attn.hook_q", "blocks.2.attn.hook_attn_scores",
                      "blocks.2.attn.hook_qq", "xblocks.2.attn.hook_q"):
            self.assertIsNone(names.resolve(other), other)

    def test_what_is_served_and_what_is_not(self):
        served = names.served([0, 2], rotary=True)
        self.assertIn("blocks.2.attn.hook_rot_k", served)
        self.assertIn("blocks.0.attn.v.hook_out", served)
        self.assertNotIn("blocks.1.attn.hook_q", served)
        self.assertFalse([n for n in names.served([0], rotary=False)
                          if "rot" in n])
        self.assertFalse(served & names.not_served(3))
        self.assertIn("blocks.2.hook_resid_post", names.not_served(3))


class ServedTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server({name: ROOT / "tests/goldens" / name
                             for name in FAMILIES})
        cls.addClassCleanup(cls.server.stop)
        cls.lab = qkscope.connect(cls.server.address)
        cls.addClassCleanup(cls.lab.close)

    def test_cache_dict_has_their_keys_shapes_and_values(self):
        for family in FAMILIES:
            folder = ROOT / "tests/goldens" / family
            golden = load_file(folder / "golden.safetensors")
            ids = json.loads((folder / "golden.json").read_text())[
                "prompts"]["p0"]["ids"]
            run = self.lab.analyze(family, ids, capture=qkscope.Capture(
                points=list(names.POINTS), form="raw",
                positions=range(len(ids))))
            cache = run.cache_dict()
            wanted = {key.removeprefix("p0/prefill/"): value
                      for key, value in golden.items()
                      if key.startswith("p0/prefill/layer")}
            self.assertGreater(len(wanted), 8)
            for key, value in wanted.items():
                _, layer, point = key.split(".")
                got = cache[names.hook_name(int(layer), point)]
                if point == "hook_pattern":
                    value = value.transpose(1, 0, 2)
                self.assertEqual(got.shape, (1, *value.shape))
                np.testing.assert_allclose(got[0], value, atol=2e-5, rtol=1e-5,
                                           err_msg=f"{family} {key}")

    def run_arm(self, arm):
        return self.lab.analyze(
            "tiny_llama_gqa", IDS, arms=["clean", arm],
            compare="clean", capture=qkscope.Capture(
                points=["hook_q", "hook_v", "hook_rot_q", "hook_rot_k"],
                form="raw", stage="after"))

    def test_interventions_do_what_they_say(self):
        for hook, spec, factor, span in (
                ("hook_rot_q", {"op": "suppress"}, 0, slice(None)),
                ("hook_rot_k", {"op": "scale", "factor": -2.5}, -2.5,
                 slice(None)),
                ("hook_v", {"op": "suppress", "pos": 4}, 0, slice(4, 5)),
                ("hook_q", {"op": "scale", "factor": 3, "pos": [6, 5]}, 3,
                 slice(5, 7))):
            with self.subTest(hook=hook):
                arm = interventions.arm_of(
                    {names.hook_name(1, hook): spec}, {0: 8, 1: 8})
                run = self.run_arm(arm)
                clean = run["clean"].point(hook, stage="after").layer(1)
                got = run[arm.name].point(hook, stage="after").layer(1)
                wanted = np.array(clean)
                wanted[span] *= factor
                np.testing.assert_allclose(got, wanted, atol=1e-6, rtol=1e-6)
                np.testing.assert_array_equal(
                    run[arm.name].point(hook, stage="after").layer(0),
                    run["clean"].point(hook, stage="after").layer(0))
                self.assertGreater(run[arm.name].comparison.mean_kl, 0)

    def test_what_no_rule_can_do_is_refused_in_a_sentence(self):
        q = names.hook_name(0, "hook_rot_q")
        for intervene, part in (
                ({q: {"op": "add", "value": 1}}, "operation 'add'"),
                ({q: lambda x: x}, "a function"),
                ({q: {}}, "operation None"),
                ({q: {"op": "suppress", "pos": [1, 3]}}, "adjacent"),
                ({q: {"op": "scale"}}, "'factor'"),
                ({names.hook_name(5, "hook_q"): {"op": "suppress"}},
                 "blocks.5"),
                ({names.hook_name(0, "hook_z"): {"op": "suppress"}}, "hook_z"),
                ({"blocks.0.hook_out": {"op": "suppress"}}, "hook_out")):
            with self.subTest(part=part):
                with self.assertRaises((NotImplementedError, ValueError)) as e:
                    interventions.arm_of(intervene, {0: 8, 1: 8})
                self.assertIn(part, str(e.exception))
                self.assertNotIn("\n", str(e.exception))


if __name__ == "__main__":
    unittest.main()
