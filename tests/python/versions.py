"""Runs the tests of client/python with old and new versions of what it needs:
Python, grpcio, protobuf, numpy and rich, each set in a fresh virtual
environment below build/python-versions.

    python3 tests/python/versions.py            all that this machine has
    python3 tests/python/versions.py 3.10       those of one Python

QK_BIN_DIR: the folder of qkscoped and qkctl. The registry of PyPI is needed.
Pythons are looked for in the PATH and among pyenv's.
"""

import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ("arms", "checker", "crc32c", "calls", "files", "server")

# Python -> sets of versions: the oldest grpcio that has a wheel for it, and all
# protobufs from 4 on.
SETS = {
    "3.10": [["grpcio==1.51.1", "protobuf==4.21.12", "numpy==1.22.4",
              "rich==12.0.0"],
             ["grpcio", "protobuf", "numpy", "rich"]],
    "3.11": [["grpcio==1.51.1", "protobuf==4.25.8", "numpy==1.26.4", "rich"],
             ["grpcio==1.64.1", "protobuf>=5,<6", "numpy<2", "rich"]],
    "3.12": [["grpcio==1.59.0", "protobuf>=5,<6", "numpy", "rich"],
             ["grpcio", "protobuf>=6,<7", "numpy", "rich"]],
    "3.13": [["grpcio==1.66.2", "protobuf>=6,<7", "numpy", "rich"],
             ["grpcio", "protobuf>=7", "numpy", "rich"]],
}
# What the tests themselves need.
ORACLES = ["crc32c", "safetensors"]


def find_python(version):
    """Returns the path of a Python of this version, or None."""
    candidates = [shutil.which(f"python{version}"),
                  *sorted(glob.glob(os.path.expanduser(
                      f"~/.pyenv/versions/{version}.*/bin/python")))]
    for path in filter(None, candidates):
        # pyenv's shims stand for versions that may not be chosen.
        told = subprocess.run([path, "--version"], check=False,
                              capture_output=True, encoding="utf-8")
        if re.match(rf"Python {re.escape(version)}\.", told.stdout):
            return path
    return None


def run_set(python, version, packages):
    """Returns whether all tests pass; prints what fails."""
    name = re.sub(r"[^\w.]+", "_", "_".join([version, *packages]))
    folder = ROOT / "build" / "python-versions" / name
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    own = folder / "bin" / "python"
    subprocess.run([own, "-m", "pip", "--quiet", "--disable-pip-version-check",
                    "install", "--only-binary", ":all:", *packages, *ORACLES],
                   check=True)
    frozen = subprocess.run([own, "-m", "pip", "freeze"], check=True,
                            stdout=subprocess.PIPE, encoding="utf-8").stdout
    told = [line for line in frozen.split()
            if line.partition("==")[0] in ("grpcio", "protobuf", "numpy",
                                           "rich")]
    print(f"== Python {version}: {', '.join(told)}", flush=True)
    passed = True
    for test in TESTS:
        began = time.monotonic()
        result = subprocess.run(
            [own, "-B", "-W", "error::DeprecationWarning:qkscope",
             ROOT / "tests" / "python" / f"test_{test}.py"], check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", env=os.environ)
        ok = result.returncode == 0
        passed = passed and ok
        print(f"{'passed' if ok else 'FAILED'} {test} "
              f"({time.monotonic() - began:.0f} s)", flush=True)
        if not ok:
            print(result.stdout)
    return passed


def main():
    chosen = sys.argv[1:] or list(SETS)
    found = failed = 0
    for version in chosen:
        python = find_python(version)
        if python is None:
            print(f"== Python {version}: not on this machine")
            continue
        for packages in SETS[version]:
            found += 1
            failed += not run_set(python, version, packages)
    print(f"{found} sets of versions, {failed} failed")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
