"""What needs an extra: xarray trees, tables of pandas and polars, and chat
templates."""

import json
import pathlib
import tempfile
import unittest

import numpy as np
import pandas
import polars
import support  # pylint: disable=unused-import
import xarray
from fake_stream import fake_stream

import qkscope
from qkscope import chat, wire
from qkscope.streams import RunBuilder
from qkscope.v1 import spec_pb2 as spec


def fake_run(**options):
    builder = RunBuilder()
    for event in fake_stream(**options):
        builder.add(wire.decode_event(event.SerializeToString()))
    return builder.run()


class TablesTest(unittest.TestCase):

    def test_a_tree(self):
        run = fake_run()
        tree = run.to_xarray()
        self.assertIsInstance(tree, xarray.DataTree)
        self.assertEqual(tree.attrs["model"], "fake")
        self.assertEqual(set(tree.children), {"clean", "top_k:1"})
        for layer in range(2):
            q = tree[f"clean/layer_{layer}"]["hook_rot_q"]
            self.assertEqual(q.dims, ("q_head", "dim"))
            np.testing.assert_array_equal(q.values,
                                          run["clean"].q.layer(layer))
            self.assertEqual(q.attrs["massive_count"], 1)
        self.assertEqual(tree["top_k:1"]["kl"].values.tolist(), [0.5] * 3)
        self.assertEqual(tree["top_k:1"].attrs["kind"], "disrupted")

    def test_trees_are_saved(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "a.nc"
            fake_run(form=spec.RAW, images=1).to_xarray().to_netcdf(
                path, engine="h5netcdf")
            with xarray.open_datatree(path, engine="h5netcdf") as tree:
                raw = tree["clean/layer_1"]["hook_rot_k"]
                self.assertEqual(raw.shape, (1, 2, 4))
                self.assertEqual(raw.dims[0], "position")
                patches = tree["clean/image_0_layer_0"]["hook_rot_k"]
                self.assertEqual(patches.dims[0], "patch")

    def test_names_with_a_slash(self):
        tree = fake_run(arms=("clean", "preset:a/b")).to_xarray()
        self.assertEqual(tree["preset:a|b"].attrs["arm"], "preset:a/b")

    def test_tables(self):
        run = fake_run()
        for frame, kind in ((run.to_pandas(), pandas.DataFrame),
                            (run.to_polars(), polars.DataFrame)):
            self.assertIsInstance(frame, kind)
            self.assertEqual(len(frame), 12)
            self.assertEqual(list(frame["arm"][:3]), ["clean"] * 3)
            self.assertEqual(int(frame["massive_count"].sum()), 4)
            self.assertEqual(set(frame["point"]),
                             {"hook_rot_q", "hook_rot_k", "hook_v"})
            self.assertEqual(float(frame["mean_kl"].max()), 0.5)


MESSAGES = [{"role": "user", "content": "Hi <b>"},
            {"role": "assistant", "content": "Hello"}]
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>"
            "{{ m['content'] | trim }}\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")


class ChatTest(unittest.TestCase):

    def test_a_template(self):
        text = chat.render_chat(TEMPLATE, MESSAGES, bos_token="<s>")
        self.assertEqual(
            text, "<s><|user|>Hi <b>\n<|assistant|>Hello\n<|assistant|>")
        self.assertTrue(chat.render_chat(
            TEMPLATE, MESSAGES, add_generation_prompt=False,
            bos_token="").endswith("Hello\n"))

    def test_it_is_in_a_sandbox(self):
        for template in (
                "{{ messages.__class__.__mro__ }}",
                "{{ ''.__class__.__base__.__subclasses__() }}",
                "{{ raise_exception.__globals__['os'] }}",
                "{{ messages.append(1) }}",
                "{{ messages[0].update({'role': 'x'}) }}",
                "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
                "{% import 'os' as os %}"):
            with self.subTest(template), self.assertRaisesRegex(
                    qkscope.InvalidRequest, "^chat template: "):
                chat.render_chat(template, MESSAGES)
        self.assertEqual(MESSAGES[0]["role"], "user")
        # What the sandbox hides is undefined, which is nothing.
        self.assertEqual(chat.render_chat("{{ lipsum.__globals__ }}",
                                          MESSAGES), "")

    def test_bad_templates(self):
        for template, message in (
                ("{% for %}", "chat template"),
                ("{{ raise_exception('roles must alternate') }}",
                 "roles must alternate"),
                ("{{ 1 // 0 }}", "ZeroDivisionError"),
                ("{{ messages[0].nothing.here }}", "undefined|no attribute"),
                ("x" * (2 << 20), "larger than")):
            with self.assertRaisesRegex(qkscope.InvalidRequest, message):
                chat.render_chat(template, MESSAGES)

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tokenizer_config.json"
            path.write_text(json.dumps({
                "chat_template": TEMPLATE, "bos_token": {"content": "<s>"},
                "eos_token": "</s>", "add_bos_token": True}))
            self.assertEqual(chat.load_template(folder),
                             (TEMPLATE, {"bos_token": "<s>",
                                         "eos_token": "</s>"}))
            path.write_text(json.dumps({"chat_template": [
                {"name": "tool", "template": "x"},
                {"name": "default", "template": "y"}]}))
            self.assertEqual(chat.load_template(path)[0], "y")
            path.write_text("{}")
            with self.assertRaisesRegex(qkscope.BadFile, "no chat_template"):
                chat.load_template(folder)
            (path.parent / "chat_template.jinja").write_text("z")
            self.assertEqual(chat.load_template(folder)[0], "z")
            with self.assertRaisesRegex(qkscope.BadFile, "cannot read"):
                chat.load_template(path.parent / "none.json")

    def test_token_ids_are_sent(self):
        class Lab:  # pylint: disable=missing-class-docstring
            def tokenize(self, model, prompt):
                self.asked = model, prompt
                return qkscope.Tokens([1, 2], [], [], [])
        lab = Lab()
        prompt = chat.chat_prompt(lab, "m", MESSAGES, template=TEMPLATE,
                                  variables={"bos_token": "<s>"})
        self.assertEqual(prompt.token_ids, [1, 2])
        self.assertEqual(lab.asked[0], "m")
        self.assertTrue(lab.asked[1].text.startswith("<s><|user|>"))
        self.assertTrue(lab.asked[1].parse_special)
        self.assertFalse(lab.asked[1].add_special_tokens)


if __name__ == "__main__":
    unittest.main()
