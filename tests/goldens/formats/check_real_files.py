"""Compares whole real GGUF files with the Python package gguf, bit for bit.

    python check_real_files.py BUILD/bin/qk_formats_sha file.gguf...

Both programs dequantise every tensor; the SHA-256 of the float32 bytes must be
equal, in the same order, and so must the file's.
"""

import hashlib
import subprocess
import sys

import gguf
import numpy as np


def expected_lines(path):
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = np.ascontiguousarray(values, dtype=np.float32)
        yield f"{hashlib.sha256(values.tobytes()).hexdigest()} {tensor.name}"
    with open(path, "rb") as file:
        yield f"{hashlib.file_digest(file, 'sha256').hexdigest()} file"


def main():
    tool, *paths = sys.argv[1:]
    failed = False
    for path in paths:
        run = subprocess.run([tool, path], check=True, text=True,
                             stdout=subprocess.PIPE)
        got = run.stdout.splitlines()
        expected = list(expected_lines(path))
        wrong = [line for line in expected if line not in set(got)]
        failed |= got != expected
        print(f"{path}: {len(expected)} lines, {len(wrong)} differ",
              *wrong[:5], sep="\n  ")
    sys.exit(failed)


if __name__ == "__main__":
    main()
