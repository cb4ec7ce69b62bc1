"""Tests qkctl with text, on SmolLM2-135M-Instruct (deploy/fetch_model.sh).

Other tests check how close its numbers are to transformers'.
"""

import json
import pathlib
import unittest

from processes import Server, demo_model, qkctl, scratch_folder

TEXT = ("The city of Paris lies on the river Seine, and the tower that "
        "everybody knows was built there for a great world fair.")
LAYERS = 30


class RealModelTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server({"smollm2": demo_model()})
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def qkctl(self, *arguments, text=None):
        result = qkctl(self.server, *arguments, text=text)
        self.assertEqual(result.returncode, 0,
                         f"{arguments}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def test_the_demo(self):
        manifest = self.folder / "m.json"
        out = self.qkctl("analyze", "--prompt", TEXT, "--arm", "clean", "--arm",
                         "top_k:1", "--arm", "bottom_k:1", "--explain",
                         "--manifest", manifest)
        rows = [line.split() for line in out.splitlines()
                if line.split() and line.split()[0].isdigit()]
        self.assertEqual([int(row[0]) for row in rows], list(range(LAYERS)))
        queries = sum(int(row[1]) for row in rows)
        values = sum(int(row[9]) for row in rows)
        self.assertGreater(queries, 10 * values)
        self.assertRegex(out, "top_k:1 disturbs the model .* times as much as "
                              "bottom_k:1")
        self.assertIn("identical", self.qkctl("replay", manifest))

    def test_prompts_from_everywhere_are_one(self):
        file = self.folder / "prompt.txt"
        file.write_text(TEXT, encoding="utf-8")
        ids = self.qkctl("tokenize", "--prompt", TEXT, "--ids").strip()
        self.assertTrue(ids.startswith("504,2240,282,7042,"), ids)
        outputs = {self.qkctl("analyze", *source, "--layers", "29", text=TEXT)
                   for source in (["--prompt", TEXT], ["--prompt", "-"],
                                  ["--prompt-file", file],
                                  ["--token-ids", ids])}
        self.assertEqual(len(outputs), 1, outputs)

    def test_tokens_and_back(self):
        ids = self.qkctl("tokenize", "--prompt", TEXT, "--ids").strip()
        self.assertEqual(self.qkctl("tokenize", "--decode", ids), TEXT + "\n")
        self.assertIn("'The'", self.qkctl("tokenize", "--prompt", TEXT))

    def test_generate_and_its_disruption(self):
        command = ["generate", "--prompt", "The capital of France is",
                   "--max-new-tokens", "8"]
        clean = self.qkctl(*command)
        self.assertIn("Paris", clean)
        self.assertEqual(self.qkctl(*command, "--arm", "top_k:0"), clean)
        self.assertNotEqual(
            self.qkctl(*command, "--arm", "top_k:8,replace=zero"), clean)

    def test_score_prefers_the_truth(self):
        out = self.qkctl("score", "--context", "The capital of France is",
                         "--continuation", " Paris", "--continuation",
                         " Rome", "--json")
        paris, rome = (json.loads(line)["result"]["logprob"]
                       for line in out.splitlines())
        self.assertGreater(paris, rome)

    def test_chat(self):
        out = self.qkctl("tokenize", "--chat", "chatml", "--prompt", "hello")
        self.assertIn("<|im_start|>", out)


if __name__ == "__main__":
    unittest.main()
