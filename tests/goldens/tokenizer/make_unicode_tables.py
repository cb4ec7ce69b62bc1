#!/usr/bin/env python3
"""Writes engine/tokenizer/unicode_tables.cc.

The script asks the `tokenizers` package itself for the character classes, code
point by code point, because its three regex engines follow different versions
of Unicode and models were trained with its behaviour:

  letter, number, space   \\p{L} \\p{N} \\s of Split and ByteLevel patterns
  numeric                 what the Digits pre-tokenizer takes for a digit
  word                    \\w, which decides on `single_word` of added tokens
  mark                    what NFC puts in order: non-zero combining class
  accent                  what the StripAccents normalizer takes away

Usage: make_unicode_tables.py > engine/tokenizer/unicode_tables.cc
"""

import sys

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
)

LETTER, NUMBER, SPACE, NUMERIC, WORD, MARK, ACCENT = 1, 2, 4, 8, 16, 32, 64
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BLOCK = 4096


def blocks():
    for i in range(0, len(POINTS), BLOCK):
        yield POINTS[i : i + BLOCK]


def regex_class(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for block in blocks():
        for piece, _ in split.pre_tokenize_str("".join(map(chr, block))):
            found.update(map(ord, piece))
    return found


def numeric_class():
    digits = pre_tokenizers.Digits(individual_digits=True)
    found = set()
    for block in blocks():
        text = "aa".join(map(chr, block))
        for piece, _ in digits.pre_tokenize_str("aa" + text + "aa"):
            if len(piece) == 1:
                found.add(ord(piece))
    return found


def word_class():
    # A character before the token is a word character if the token, which must
    # stand alone, is not found after it.
    tokenizer = Tokenizer(models.BPE({}, []))
    tokenizer.add_tokens([AddedToken("#", single_word=True, normalized=False)])
    found = set()
    for block in blocks():
        texts = [chr(c) + "#" for c in block if c != ord("#")]
        for text, encoding in zip(texts, tokenizer.encode_batch(texts)):
            if not encoding.ids:
                found.add(ord(text[0]))
    return found


def mark_class():
    # Between marks of class 240 and 1, any mark moves or lets the others pass;
    # a starter keeps them apart.
    nfc = normalizers.NFC()
    found = set()
    for c in POINTS:
        text = "e\u0345" + chr(c) + "\u0334"
        stable = nfc.normalize_str(chr(c)) == chr(c)
        if stable and nfc.normalize_str(text) != text:
            found.add(c)
    return found


def accent_class():
    strip = normalizers.StripAccents()
    return {c for c in POINTS if not strip.normalize_str(chr(c))}


def main():
    classes = {
        LETTER: regex_class(r"\p{L}"),
        NUMBER: regex_class(r"\p{N}"),
        SPACE: regex_class(r"\s"),
        NUMERIC: numeric_class(),
        WORD: word_class(),
        MARK: mark_class(),
        ACCENT: accent_class(),
    }
    ranges = []
    previous = None
    for c in range(0x110000):
        bits = sum(bit for bit, points in classes.items() if c in points)
        if bits != previous:
            ranges.append(c << 8 | bits)
            previous = bits
    out = sys.stdout
    out.write(
        "// Made by tests/goldens/tokenizer/make_unicode_tables.py,\n"
        f"// with tokenizers {tokenizers.__version__}.\n"
        '#include "engine/tokenizer/unicode.h"\n\nnamespace qk {\n\n'
        f"const std::array<uint32_t, kNumUnicodeRanges> kUnicodeRanges"
        " = {\n"
    )
    for i in range(0, len(ranges), 6):
        row = ", ".join(f"0x{r:08x}" for r in ranges[i : i + 6])
        out.write(f"    {row},\n")
    out.write("};\n\n}  // namespace qk\n")
    sys.stderr.write(f"kNumUnicodeRanges must be {len(ranges)}\n")
    for bit, points in classes.items():
        sys.stderr.write(f"class {bit}: {len(points)} code points\n")


if __name__ == "__main__":
    main()
