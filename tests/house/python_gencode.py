"""Holds the generated code of client/python equal to what Debian's protoc and
grpc_python_plugin make of proto/.

The oldest generator that people have is used on purpose: its code runs with
every newer runtime, and newer code does not run with older ones.

    python3 tests/house/python_gencode.py            what differs
    python3 tests/house/python_gencode.py --update   writes it anew
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = "client/python"
# What clients send and receive; the other files are the server's own.
PROTOS = ("admin", "analysis", "error", "spec")
PLUGIN = "/usr/bin/grpc_python_plugin"


def generate(folder):
    """Writes the code below the folder."""
    subprocess.run(
        ["protoc", "-I", ROOT / "proto", f"--python_out={folder}",
         f"--pyi_out={folder}", f"--grpc_python_out={folder}",
         f"--plugin=protoc-gen-grpc_python={PLUGIN}",
         *(f"qkscope/v1/{name}.proto" for name in PROTOS)],
        check=True, cwd=ROOT / "proto")


def code_of(folder):
    """Returns the generated files: path -> content."""
    return {path.relative_to(folder).as_posix(): path.read_text()
            for path in sorted(pathlib.Path(folder).glob("qkscope/v1/*_pb2*"))}


def problems(root=ROOT):
    """Returns the files that are not what the generator makes."""
    with tempfile.TemporaryDirectory() as folder:
        generate(folder)
        wanted = code_of(folder)
    there = code_of(root / OUT)
    return [f"{OUT}/{name} is not what proto/ gives: run "
            "`python3 tests/house/python_gencode.py --update` and commit it."
            for name in sorted(wanted.keys() | there.keys())
            if wanted.get(name) != there.get(name)]


def main():
    if sys.argv[1:] == ["--update"]:
        for name in code_of(ROOT / OUT):
            (ROOT / OUT / name).unlink()
        generate(ROOT / OUT)
    found = problems()
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
