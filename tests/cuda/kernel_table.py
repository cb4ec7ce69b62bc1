"""Prints what each kernel needs of a multiprocessor, as ptxas said it: a row
for each kernel and architecture. Fails if a kernel has a stack frame or spills
registers, unless it is in MAY_USE_STACK.

    kernel_table.py FOLDER    the folder with the files *.ptxas
"""

import pathlib
import re
import subprocess
import sys

# Kernels that run once per pass or seldom, and why they have a stack frame.
MAY_USE_STACK = {
    "RopeTableKernel": "the slow path of sincos for large angles",
}
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                   r"(\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def read_kernels(text):
    """Returns rows (mangled name, arch, registers, shared, stack, spilled)."""
    rows = []
    entry = stack = None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            entry = match.groups()
        elif match := STACK.search(line):
            stack = [int(n) for n in match.groups()]
        elif (match := USED.search(line)) and entry and stack:
            shared = SHARED.search(line)
            rows.append((*entry, int(match[1]), int(shared[1]) if shared else 0,
                         stack[0], stack[1] + stack[2]))
            entry = stack = None
    return rows


def short_name(name):
    """"void qk::cuda::(anonymous namespace)::K<1>(int)" is "K<1>"."""
    depth = 0
    for index, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0 and not name.startswith(
                "(anonymous namespace)", index):
            name = name[:index]
            break
    return re.sub(r"^void |qk::cuda::|\(anonymous namespace\)::|qk::", "", name)


def demangled(names):
    result = subprocess.run(["c++filt"], input="\n".join(names), text=True,
                            check=True, capture_output=True)
    return [short_name(line) for line in result.stdout.splitlines()]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.ptxas"))
    rows = []
    for path in files:
        found = read_kernels(path.read_text())
        names = demangled([row[0] for row in found])
        rows += [(path.name.removesuffix(".o.ptxas"), name, *row[1:])
                 for name, row in zip(names, found)]
    if not rows:
        sys.exit(f"{sys.argv[1]}: no kernel in {len(files)} files *.ptxas")
    line = "{:<22} {:<44} {:<6} {:>9} {:>6} {:>5} {:>7}"
    print(line.format("file", "kernel", "arch", "registers", "shared", "stack",
                      "spilled"))
    bad = []
    for row in sorted(rows):
        print(line.format(*row))
        if row[5] + row[6] > 0 and row[1].split("<")[0] not in MAY_USE_STACK:
            bad.append(f"{row[1]} for {row[2]}: {row[5]} bytes of stack frame "
                       f"and {row[6]} bytes of spills; expected 0 and 0")
    print("\n".join(bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
