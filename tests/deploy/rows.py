"""What the rows about installing and packages share, beside programs.py."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from programs import PATIENCE_S


def not_run(reason):
    """Ends the row: it cannot be run here."""
    print(reason)
    sys.exit(77)


def need(*programs):
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        not_run(f"not installed: {', '.join(missing)}")


def need_root():
    if os.geteuid() != 0:
        not_run("needs root")


def build_folder():
    """Returns the CMake build that QK_BIN belongs to."""
    folder = pathlib.Path(os.environ["QK_BIN"]).resolve().parent
    for part in ("cmake_install.cmake", "deploy/man/qkctl.1"):
        if not (folder / part).is_file():
            not_run(f"QK_BIN is not in a build folder with the target "
                    f"`packaged`: there is no {part} beside it")
    return folder


def sbom_faults(file, *programs):
    """Returns what is wrong with an SBOM of exactly these programs: their
    digests, which stripping changes, and a library that all of them load."""
    packages = json.loads(file.read_text("utf-8"))["packages"]
    own = {package["name"]: package["checksums"][0]["checksumValue"]
           for package in packages
           if package["SPDXID"].startswith("SPDXRef-program-")}
    expected = {program.name: hashlib.sha256(program.read_bytes()).hexdigest()
                for program in programs}
    faults = []
    if own != expected:
        faults.append(f"programs {own}, expected {expected}")
    if "libgrpc++1.51" not in [package["name"] for package in packages]:
        faults.append("libgrpc++1.51 is not in it")
    return faults


def run(*command, **more):
    """Runs a command, which must succeed, and returns its output.

    With check=False it may fail, and its result is returned.
    """
    check = more.pop("check", True)
    result = subprocess.run(
        [*map(str, command)],
        **{"check": False, "stdout": subprocess.PIPE, "encoding": "utf-8",
           "timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **more})
    if not check:
        return result
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit status "
                             f"{result.returncode}\n{result.stdout}")
    return result.stdout


def step(text, began=time.monotonic()):
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)
