"""Prints the inner loops of the CPU's products with AVX-512, and fails if one of
them moves a pointer between registers of two kinds or to the stack: a tile of
12 rows has just enough registers, and without them it is 8 % slower.

    tile_loops.py OBJECT...    object files; on other machines than x86-64
                               there is nothing to check
"""

import pathlib
import re
import subprocess
import sys

MULTIPLY_ADD = re.compile(r"\bv(?:fn?madd\w+ps|dpbf16ps)\b.*%zmm")
SPILL = re.compile(r"\bv?mov[dq]\b.*%(?:xmm\d+,%r|r\w+,%xmm)|\(%r[sb]p\)")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(.*)$")
JUMP = re.compile(r"^j\w+\s+([0-9a-f]+)\b")
# Two vectors of 10 to 12 rows.
MULTIPLY_ADDS = (20, 22, 24)


def inner_loops(listing):
    """Yields the instructions of each loop that has no jump in it."""
    section = []
    for line in listing.splitlines():
        if not (match := INSTRUCTION.match(line)):
            section = []
            continue
        section.append((int(match[1], 16), match[2]))
        if not (jump := JUMP.match(match[2])):
            continue
        start = int(jump[1], 16)
        body = [text for address, text in section if address >= start]
        if start <= section[-1][0] and section[0][0] <= start:
            yield body
        section = []


def main():
    seen, bad = 0, 0
    for name in sys.argv[1:]:
        listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", name],
                                 check=True, capture_output=True,
                                 text=True).stdout
        for body in inner_loops(listing):
            if sum(bool(MULTIPLY_ADD.search(x)) for x in body) not in (
                    MULTIPLY_ADDS):
                continue
            spills = [x for x in body if SPILL.search(x)]
            print(f"{pathlib.Path(name).name}: {len(body)} instructions"
                  + "".join(f"\n    {x}" for x in spills))
            seen += 1
            bad += bool(spills)
    print(f"{seen} loops, {bad} with spills")
    if bad or not seen:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
