"""Tests tests/gpu/ where there is no GPU: its scripts parse, run.sh says "no
GPU" and goes on where it can, and a stage that fails or hangs costs itself
only. A folder of small scripts stands for the parcel.
"""

import os
import pathlib
import stat
import subprocess
import tarfile
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ["QK_BIN_DIR"]).resolve()
SCRIPTS = ("pack.sh", "run.sh", "service.sh")
PROGRAMS = ("backend_conformance_test", "golden_test", "identity_test",
            "families_identity_test", "disruption_test", "generation_test",
            "shapes_identity_test", "create_backend_test",
            "cuda_no_device_test", "cuda_bench")


class GpuScriptsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"
        self.parcel = self.folder / "parcel"
        self.tools = self.folder / "tools"
        self.tools.mkdir()
        # This machine may have a GPU; the tests do not.
        self.write(self.tools / "nvidia-smi", "exit 9")

    def write(self, path, commands):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{commands}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def make_parcel(self):
        for name in PROGRAMS:
            self.write(self.parcel / "bin" / name, f"echo {name} ran $*")
        for name in ("qkscoped", "qkctl"):
            (self.parcel / "bin" / name).symlink_to(BIN / name)

    def make_gpu(self):
        self.write(self.tools / "nvidia-smi",
                   'if [[ "$1" == -L ]]; then echo "GPU 0: a fake"; fi')

    def run_it(self, *calls, seconds="570"):
        """Runs the calls; returns the last status and the report."""
        environment = {**os.environ, "QK_GPU_PARCEL": str(self.parcel),
                       "QK_GPU_SECONDS": seconds,
                       "PATH": f"{self.tools}:{os.environ['PATH']}"}
        for call in calls or ([],):
            done = subprocess.run(
                ["bash", HERE / "run.sh", self.out, *call], env=environment,
                capture_output=True, text=True, check=False)
        report = self.out / "report.md"
        self.assertTrue(report.is_file(), done.stderr)
        return done.returncode, report.read_text()

    def test_scripts_parse(self):
        for name in SCRIPTS:
            subprocess.run(["bash", "-n", HERE / name], check=True)
        source = (HERE / "transformers_times.py").read_text()
        compile(source, "transformers_times.py", "exec")

    def test_a_machine_with_nothing(self):
        status, report = self.run_it()
        self.assertEqual(status, 0, report)
        self.assertIn("no GPU", report)
        self.assertIn("There is no parcel", report)
        self.assertIn("| Facts | passed |", report)

    def test_a_parcel_without_a_gpu(self):
        self.make_parcel()
        status, report = self.run_it()
        self.assertEqual(status, 0, report)
        self.assertIn("no GPU", report)
        self.assertIn("cuda_no_device_test ran", report)
        self.assertIn("| The service, on the CPU | passed |", report)
        self.assertIn("memory used on the GPU", report)
        self.assertNotIn("golden_test", report)

    def test_a_stage_that_fails_costs_itself(self):
        self.make_parcel()
        self.make_gpu()
        self.write(self.parcel / "bin" / "golden_test",
                   "echo it differs; exit 1")
        status, report = self.run_it()
        self.assertEqual(status, 1, report)
        self.assertNotIn("no GPU", report)
        self.assertIn("it differs", report)
        self.assertIn("| Goldens | FAILED: status 1 |", report)
        self.assertIn("| Disruption | passed |", report)
        self.assertIn("cuda_bench ran ceilings probe", report)
        self.assertIn("it differs", (self.out / "logs.txt").read_text())

    def test_a_stage_that_hangs_is_ended(self):
        self.make_parcel()
        self.make_gpu()
        self.write(self.parcel / "bin" / "golden_test",
                   "echo begun; exec sleep 600")
        status, report = self.run_it(seconds="12")
        self.assertEqual(status, 1, report)
        self.assertRegex(report, r"\| Goldens \| FAILED: not done after \d+ s")
        self.assertIn("begun", report)
        self.assertIn("| Disruption | not run: no time was left |", report)

    def test_the_second_call_adds_to_the_report(self):
        self.make_parcel()
        self.make_gpu()
        # The service's stage asks for a GPU, which there is not.
        status, report = self.run_it(["a"], ["b"])
        self.assertEqual(status, 1, report)
        self.assertIn("## Stages of call a", report)
        self.assertIn("## Stages of call b", report)
        self.assertIn("cuda_bench ran passes", report)
        self.assertRegex(report, r"\| The service \| FAILED")

    def test_a_gpu_without_a_parcel_fails(self):
        self.make_gpu()
        status, report = self.run_it()
        self.assertEqual(status, 1, report)
        self.assertIn("There is no parcel", report)

    def pack(self, text):
        """Makes a packed parcel whose golden_test says the text."""
        folder = self.folder / "packing" / "gpu"
        self.write(folder / "bin" / "golden_test", f"echo {text}")
        self.write(folder / "bin" / "qkctl", "exit 0")
        with tarfile.open(f"{self.parcel}.tar.xz", "w:xz") as parcel:
            parcel.add(folder, "gpu")

    def test_a_parcel_is_unpacked_and_a_new_one_replaces_it(self):
        self.make_gpu()
        for text in ("the first", "the second"):
            self.pack(text)
            _, report = self.run_it()
            self.assertIn(text, report)
            self.assertIn("| Goldens | passed |", report)
        self.assertNotIn("the first", report)

    def test_bad_arguments(self):
        for arguments in ([], [self.out, "c"], [self.out, "a", "b"]):
            done = subprocess.run(["bash", HERE / "run.sh", *arguments],
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
