"""Runs client/python/tutorial.ipynb, and the code of docs/python_pictures.md,
against a tiny model. The notebook's own outputs are of SmolLM2:

    QKSCOPE_SERVER=HOST:PORT QKSCOPE_MODEL=smollm2 \\
        python tests/python/test_tutorial.py --update
"""

import asyncio
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import unittest
from unittest import mock

import nbclient
import nbformat
from jupyter_client import AsyncKernelManager
from support import PACKAGE, ROOT

NOTEBOOK = PACKAGE / "tutorial.ipynb"
PAGE = ROOT / "docs" / "python_pictures.md"
TINY = ROOT / "tests" / "goldens" / "tiny_llama_gqa"
PATIENCE_S = 1200


def execute(folder):
    """Runs the notebook in the folder; returns it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    async def run():
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc",
            ip=str(pathlib.Path(folder) / "kernel"))
        client = nbclient.NotebookClient(
            notebook, km=kernel, timeout=PATIENCE_S, record_timing=False,
            resources={"metadata": {"path": str(folder)}})
        try:
            await client.async_execute()
        finally:
            await kernel.shutdown_kernel(now=True)

    with mock.patch.dict(os.environ, {"PYTHONPATH": str(PACKAGE)}):
        asyncio.run(run())
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    return "".join(output.get("text", "") or
                   output.get("data", {}).get("text/plain", "")
                   for output in cell.outputs)


def has_picture(cell):
    return any("image/png" in output.get("data", {})
               for output in cell.outputs)


class ServedCase(unittest.TestCase):
    """A server with a tiny model that reads the letters of the prompts."""

    @classmethod
    def setUpClass(cls):
        from byte_tokenizer import byte_tokenizer
        from processes import Server

        folder = tempfile.TemporaryDirectory(prefix="qkscope_tutorial_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        model = shutil.copytree(TINY, cls.folder / "model")
        letters = sorted(set("abcdefghijklmnopqrstuvwxyz,.TPSFC\u0120"))
        (model / "tokenizer.json").write_text(json.dumps(
            byte_tokenizer(letters, [])))
        cls.server = Server({"tiny": model})
        cls.addClassCleanup(cls.server.stop)
        environment = mock.patch.dict(os.environ, {
            "QKSCOPE_SERVER": cls.server.address, "QKSCOPE_MODEL": "tiny",
            "MPLCONFIGDIR": str(cls.folder / "mpl")})
        environment.start()
        cls.addClassCleanup(environment.stop)


class TutorialTest(ServedCase):

    def test_every_cell_runs(self):
        folder = self.folder / "work"
        folder.mkdir()
        notebook = execute(folder)
        cells = code_cells(notebook)
        self.assertGreaterEqual(len(cells), 12)
        for cell in cells:
            self.assertEqual(has_picture(cell), "plot." in cell.source,
                             cell.source)
        (shapes,) = [c for c in cells if "layers, heads, dims" in c.source]
        self.assertEqual(texts(shapes), "(2, 4, 8) layers, heads, dims of Q; "
                         "(2, 2, 8) of K\n")
        (table,) = [c for c in cells if "flips" in c.source]
        self.assertRegex(texts(table), r"(?m)^clean +0\.0000 +0/\d+ ")
        self.assertRegex(texts(table), r"(?m)^top_k:1 +\d+\.\d+ ")
        (again,) = [c for c in cells if "from_safetensors" in c.source]
        self.assertEqual(texts(again), "True")
        self.assertIn("<!doctype html>",
                      (folder / "tutorial.html").read_text()[:20])
        self.assertTrue((folder / "tutorial.safetensors").exists())


class CommittedTest(unittest.TestCase):

    def test_outputs_are_of_a_whole_run(self):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbformat.validate(notebook)
        cells = code_cells(notebook)
        self.assertEqual([cell.execution_count for cell in cells],
                         list(range(1, len(cells) + 1)))
        for cell in cells:
            self.assertEqual(has_picture(cell), "plot." in cell.source)
            for output in cell.outputs:
                self.assertNotEqual(output.output_type, "error")
                self.assertNotEqual(output.get("name"), "stderr")
        self.assertIn("smollm2: llama, 30 layers", texts(cells[0]))
        self.assertIsNone(re.search(r"/(root|home|tmp|work)/",
                                    NOTEBOOK.read_text(encoding="utf-8")))


class PageTest(ServedCase):

    def test_the_pages_code_runs(self):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        import qkscope
        from qkscope import Arm, Capture

        folder = self.folder / "page"
        folder.mkdir()
        with qkscope.connect() as lab:
            run = lab.analyze("tiny", "The city of Paris", arms=[
                Arm.clean(), Arm.top_k(1)], capture=Capture(points=[
                    "hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k"],
                    stage="before_and_after"))
        run.to_safetensors(folder / "a.safetensors")
        blocks = re.findall(r"^```python\n(.*?)^```$",
                            PAGE.read_text(encoding="utf-8"), re.M | re.S)
        self.assertGreaterEqual(len(blocks), 7)
        names = {}
        with contextlib.chdir(folder):
            for block in blocks:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block, "docs/python_pictures.md", "exec"),
                         names)
            self.assertEqual(pathlib.Path("k.pdf").read_bytes()[:5], b"%PDF-")
        self.assertGreaterEqual(len(plt.get_fignums()), 13)
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")


def update():
    with tempfile.TemporaryDirectory(prefix="qkscope_tutorial_") as folder:
        nbformat.write(execute(folder), NOTEBOOK)


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    else:
        unittest.main()
