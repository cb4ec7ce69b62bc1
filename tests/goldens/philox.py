"""Philox4x32-10 and the random choices qkscope makes with it.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
and the known answers of its Random123 library.
"""

from collections.abc import Iterator

MASK = 0xFFFFFFFF
PURPOSE_RANDOM_K = 1


def philox4x32_10(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Four 32-bit words of one counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = 0xD2511F53 * c0
        p1 = 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (p1 >> 32) ^ c1 ^ k0,
            p1 & MASK,
            (p0 >> 32) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0 = (k0 + 0x9E3779B9) & MASK
        k1 = (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def words(
    seed: int, purpose: int, layer: int, tensor: int, head: int, step: int
) -> Iterator[int]:
    """Yields the words of one choice: word d is word d % 4 of block d // 4.

    counter = (block, step, purpose << 24 | tensor << 16 | head, layer); key =
    (low, high) half of the seed. tensor: 0, 1, 2 = Q, K, V. head: the head's
    index, or the low 16 bits of the position for a choice per token. step: 0 in
    prefill, 1 + the decode step in decode.
    """
    key = (seed & MASK, seed >> 32)
    place = purpose << 24 | tensor << 16 | head & 0xFFFF
    block = 0
    while True:
        yield from philox4x32_10((block, step, place, layer), key)
        block += 1


def uniform(source: Iterator[int], count: int) -> int:
    """Draws an unbiased integer in [0, count); drops words over the limit."""
    limit = 2**32 - 2**32 % count
    while True:
        word = next(source)
        if word < limit:
            return word % count


def choose(source: Iterator[int], allowed: list[int], k: int) -> list[int]:
    """Chooses k of `allowed` by a partial Fisher-Yates shuffle."""
    a = list(allowed)
    for i in range(k):
        j = i + uniform(source, len(a) - i)
        a[i], a[j] = a[j], a[i]
    return a[:k]


def check_known_answers() -> None:
    """Checks Random123's kat_vectors for philox4x32 with 10 rounds."""
    ones = MASK
    assert philox4x32_10((0, 0, 0, 0), (0, 0)) == (
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    )
    assert philox4x32_10((ones,) * 4, (ones,) * 2) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )
    assert philox4x32_10(
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
    ) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
