"""Runs the programs of docs/examples against a server with SmolLM2.

One program takes the server's statistics, the other computes them from the
tensors; they must agree.
"""

import os
import re
import subprocess
import sys
import textwrap
import unittest

from documents import blocks
from processes import BIN, PATIENCE_S, ROOT, Server, demo_model

EXAMPLES = ROOT / "docs" / "examples"
LAYERS, HEADS, DIMS = 30, 9, 64


def parse(output):
    """Returns [(layer, head, dim, ratio)], {arm: (kl, changed)}."""
    layers = [(int(layer), int(head), int(dim), float(ratio))
              for layer, head, dim, ratio in re.findall(
                  r"^layer (\d+): head (\d+), dim (\d+), ([\d.]+) times its "
                  r"head's mean$", output, re.M)]
    arms = {arm: (float(kl), int(changed)) for arm, kl, changed in re.findall(
        r"^(\w+): KL ([\d.]+), (\d+) next tokens changed$", output, re.M)}
    return layers, arms


class ExamplesTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server({"smollm2": demo_model()})
        cls.addClassCleanup(cls.server.stop)

    def run_program(self, *command, expect=0):
        result = subprocess.run(
            [*command], check=False, capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONPATH": str(ROOT / "client" / "python")})
        self.assertEqual(result.returncode, expect,
                         result.stdout + result.stderr)
        return result

    def python(self, model, **more):
        return self.run_program(sys.executable, EXAMPLES / "massive_values.py",
                                self.server.address, model, **more)

    def cpp(self, model, **more):
        return self.run_program(BIN / "massive_values_example",
                                self.server.address, model, **more)

    def test_both_find_the_same(self):
        layers, arms = parse(self.cpp("smollm2").stdout)
        other_layers, other_arms = parse(self.python("smollm2").stdout)
        self.assertEqual([layer for layer, *_ in layers], list(range(LAYERS)))
        for one, other in zip(layers, other_layers, strict=True):
            self.assertEqual(one[:3], other[:3])
            self.assertAlmostEqual(one[3], other[3], delta=0.11)
            self.assertLess(one[1], HEADS)
            self.assertLess(one[2], DIMS)
            self.assertGreater(one[3], 1)
        self.assertEqual(arms, other_arms)
        self.assertEqual(arms["clean"], (0, 0))
        self.assertGreater(arms["disrupted"][0], 10 * arms["control"][0])
        self.assertEqual(set(arms), {"clean", "disrupted", "control"})

    def test_errors_are_shown(self):
        self.assertIn("nosuch", self.cpp("nosuch", expect=1).stderr)
        self.assertIn("nosuch", self.python("nosuch", expect=1).stderr)

    def test_the_readme_shows_these_programs(self):
        readme = (ROOT / "README.md").read_text("utf-8")
        for language, suffix in (("python", "py"), ("cpp", "cc")):
            program = (EXAMPLES / f"massive_values.{suffix}").read_text("utf-8")
            (block,) = [block for block in blocks(readme, language)
                        if "client" in block or "connect" in block]
            for part in block.split("\n\n"):
                self.assertTrue(
                    any(textwrap.indent(part.strip("\n"), " " * width)
                        in program for width in (0, 2, 4)), part)


if __name__ == "__main__":
    unittest.main()
