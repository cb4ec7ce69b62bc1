#!/usr/bin/env python3
"""Writes engine/tokenizer/grapheme_tables.cc.

The classes are those of UAX #29 that end or continue a grapheme cluster, in the
Unicode version of the `regex` package; Hangul syllables, which follow from
their numbers, are left out. The family `graphemes` of compare.py checks them
against `tokenizers`.

Usage: make_grapheme_tables.py > engine/tokenizer/grapheme_tables.cc
"""

import sys

import regex

# In the order of GraphemeClass.
CLASSES = [
    None, r"\p{GCB=CR}", r"\p{GCB=LF}", r"\p{GCB=Control}", r"\p{GCB=Extend}",
    r"\p{GCB=ZWJ}", r"\p{GCB=SpacingMark}", r"\p{GCB=Prepend}",
    r"\p{GCB=Regional_Indicator}", r"\p{GCB=L}", r"\p{GCB=V}", r"\p{GCB=T}",
    r"\p{Extended_Pictographic}", r"\p{InCB=Consonant}", r"[\p{InCB=Linker}&&\p{GCB=Extend}]",
    r"[\p{GCB=Extend}--\p{InCB=Extend}--\p{InCB=Linker}]",
]  # fmt: skip
# What is a mark in the package's Unicode, and nothing yet in that of
# `tokenizers`: U+0078 and the mark are two clusters there.
LATER = {0x5C8, 0x5C9, 0xB53, 0xB54, 0x1ADE, 0x1ADF, *range(0x1AEC, 0x1AF1),
         *range(0x10ECB, 0x10ED0), *range(0x10EF0, 0x10EFA), 0x11DF0, 0x1D127,
         0x1D128, *range(0x1D250, 0x1D253), 0x1D25B, 0x1D25C, 0x1D25F, 0x1D280,
         0x1D281}  # fmt: skip
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def classes():
    found = {}
    for number, pattern in enumerate(CLASSES):
        if pattern is None:
            continue
        matches = regex.compile(pattern, regex.V1).fullmatch
        for c in POINTS:
            if c not in LATER and matches(chr(c)):
                # Linkers, and what does not join consonants, are Extend, too.
                assert found.get(c, 4) == 4, hex(c)
                found[c] = number
    return found


def main():
    found = classes()
    ranges = []
    previous = None
    for c in range(0x110000):
        number = found.get(c, 0)
        if number != previous:
            ranges.append(c << 8 | number)
            previous = number
    out = sys.stdout
    out.write(
        "// Made by tests/goldens/tokenizer/make_grapheme_tables.py,\n"
        f"// with regex {regex.__version__}.\n"
        '#include "engine/tokenizer/graphemes.h"\n\nnamespace qk {\n\n'
        "const std::array<uint32_t, kNumGraphemeRanges> kGraphemeRanges = {\n"
    )
    for i in range(0, len(ranges), 6):
        row = ", ".join(f"0x{r:08x}" for r in ranges[i : i + 6])
        out.write(f"    {row},\n")
    out.write("};\n\n}  // namespace qk\n")
    sys.stderr.write(f"kNumGraphemeRanges must be {len(ranges)}\n")


if __name__ == "__main__":
    main()
