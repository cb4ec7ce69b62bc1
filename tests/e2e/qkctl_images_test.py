"""Tests the real qkctl with images, on a real server with a tiny Qwen2-VL."""

import json
import unittest

import numpy as np
from safetensors.numpy import load_file

from processes import ROOT, QkctlCase, Server

GOLDENS = ROOT / "tests" / "goldens"
MODEL = GOLDENS / "tiny_qwen2_vl_image"
IMAGE = GOLDENS / "images" / "rgb.png"
OTHER_IMAGE = GOLDENS / "images" / "yuv444.jpg"
# The image token is among others; rgb.png becomes 54 rows of 4 patches.
PROMPT = ["--token-ids", "1,9,92,95,93,5", "--image", IMAGE]
TOWER = ["--vision-layers", "0-1"]
HEADS, DIMS = 2, 8


class QkctlImagesTest(QkctlCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server({"vl": MODEL})
        cls.addClassCleanup(cls.server.stop)

    def test_table(self):
        out = self.qkctl("analyze", *PROMPT, *TOWER).stdout
        self.assertIn("vl: 59 tokens", out)
        self.assertIn("vision tower, image.layer:", out)
        for row in ("0.0", "0.1"):
            self.assertRegex(out, rf"\n +{row} +\d+ +\d+\.\d")
        self.assertRegex(out, r"\ntext:\n")
        self.assertNotIn("vision", self.qkctl("analyze", *PROMPT).stdout)

    def test_saved_tensors_and_json_lines_agree(self):
        path = self.folder / "a.safetensors"
        out = self.qkctl("analyze", *PROMPT, *TOWER, "--json", "--out",
                         path).stdout
        saved = load_file(path)
        names = [f"clean/image.0.vision.{layer}.{point}" for layer in (0, 1)
                 for point in ("hook_rot_q", "hook_rot_k", "hook_v")]
        self.assertEqual(sorted(n for n in saved if ".vision." in n),
                         sorted(names))
        lines = [json.loads(line) for line in out.splitlines()]
        frames = [line["layer"] for line in lines
                  if "image" in line.get("layer", {})]
        self.assertEqual(len(frames), len(names))
        for frame in frames:
            name = (f"clean/image.{frame['image']}.vision.{frame['layer']}."
                    + frame["point"].lower())
            self.assertEqual(frame["shape"], [HEADS, DIMS])
            values = np.array(frame["values"], dtype=np.float32)
            np.testing.assert_array_equal(values, saved[name].ravel())

    def test_norms_are_of_the_raw_values(self):
        norms, raw = self.folder / "n", self.folder / "r"
        self.qkctl("analyze", *PROMPT, *TOWER, "--out", norms)
        self.qkctl("analyze", *PROMPT, *TOWER, "--form", "raw", "--out", raw)
        norms, raw = load_file(norms), load_file(raw)
        self.assertEqual(sorted(norms), sorted(raw))
        self.assertEqual(len(raw), 2 * 6)  # layers of text and tower; Q, K, V
        for name, values in raw.items():
            self.assertTrue(np.isfinite(values).all(), name)
            if ".vision." in name:
                self.assertEqual(values.shape, (54 * 4, HEADS, DIMS))
            want = np.linalg.norm(values.astype(np.float64), axis=0)
            np.testing.assert_allclose(norms[name], want, rtol=1e-5)

    def test_estimate_counts_the_tower(self):
        def streamed(*flags):
            out = self.qkctl("estimate", *PROMPT, "--json", *flags).stdout
            return json.loads(out)["estimate"]["streamed_bytes"]
        frames = 2 * 3  # layers, points
        self.assertEqual(streamed(*TOWER) - streamed(),
                         frames * HEADS * DIMS * 4)

    def test_replay_with_the_image(self):
        tensors, manifest = self.folder / "a.safetensors", self.folder / "a"
        self.qkctl("analyze", *PROMPT, *TOWER, "--arm", "clean", "--arm",
                   "top_k:1,tower=vision", "--out", tensors, "--manifest",
                   manifest)
        for path in (tensors, manifest):
            out = self.qkctl("replay", path, "--image", IMAGE).stdout
            self.assertIn("identical: 24 payloads", out)
            self.qkctl("replay", path, expect=2)
            err = self.qkctl("replay", path, "--image", OTHER_IMAGE,
                             expect=4).stderr
            self.assertIn("images[0].sha256", err)

    def test_replay_with_patches(self):
        golden = load_file(MODEL / "golden.safetensors")
        prompt = json.loads((MODEL / "golden.json").read_text())["prompts"]["p0"]
        values = golden["p0/pixel_values"].astype("<f4").tobytes()
        frames, rows, columns = golden["p0/image_grid_thw"][0]
        escaped = "".join(f"\\{byte:03o}" for byte in values)
        request = self.folder / "request"
        request.write_text(
            f"input {{ token_ids {{ ids: {prompt['ids']} }} images {{ patches {{"
            f" frames: {frames} rows: {rows} columns: {columns}"
            f' values: "{escaped}" }} }} }}')
        patches, manifest = self.folder / "patches", self.folder / "m.json"
        patches.write_bytes(values)
        self.qkctl("analyze", "--arms", request, *TOWER, "--manifest", manifest)
        out = self.qkctl("replay", manifest, "--image", patches).stdout
        self.assertIn("identical: 12 payloads", out)

    def test_a_rule_of_the_tower_changes_the_text(self):
        out = self.qkctl("analyze", *PROMPT, "--arm", "clean", "--arm",
                         "b=top_k:4,tower=vision", "--json").stdout
        lines = [json.loads(line) for line in out.splitlines()]
        kl = {line["comparison"]["arm"]: line["comparison"]["mean_kl"]
              for line in lines if "comparison" in line}
        self.assertEqual(kl["clean"], 0)
        self.assertGreater(kl["b"], 0)

    def test_compare_shows_the_tower(self):
        out = self.qkctl("compare", *PROMPT, *TOWER, "--arm", "clean", "--arm",
                         "top_k:1,tower=vision").stdout
        self.assertRegex(out, r"\n1 of image 0 after +hook_rot_q ")

    def test_models_shows_the_tower(self):
        out = self.qkctl("models", "vl").stdout
        self.assertIn("2 layers of 2 heads x 8, hidden size 16; 2 x 2 patches "
                      "of 4 x 4 pixels become a row of 32", out)
        self.assertIn("token 95 each, of 3136 to 1003520 pixels", out)

    def test_refusals(self):
        good = ["analyze", *PROMPT]
        err = self.qkctl(*good, "--vision-layers", "2", expect=4).stderr
        self.assertIn("capture.vision_layers[0]: 2 is outside [0, 2)", err)
        self.qkctl("analyze", "--token-ids", "1", *TOWER, expect=4)
        self.qkctl("analyze", "--token-ids", "1", "--image",
                   self.folder / "none", expect=13)
        self.qkctl("analyze", "--token-ids", "95", "--image", __file__,
                   expect=4)


if __name__ == "__main__":
    unittest.main()
