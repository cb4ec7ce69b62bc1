"""CRC-32C (Castagnoli) in numpy, at several gigabytes per second. The package
crc32c (the extra "fast") is faster still, and taken where it is installed.

A CRC is the remainder of the message, a polynomial over GF(2), modulo the
generator P. x^5685 + x^1362 + x^426 + 1 is a multiple of P, and so is what
becomes of it when every exponent is doubled any number of times, because
squaring is linear there. So bytes far ahead of the end can be added to later
ones by whole-array XORs until 5685 bytes are left, without a look at a table.
What is left goes through one table, by position and value.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Union

import numpy as np
import numpy.typing as npt

Buffer = Union[bytes, bytearray, memoryview, npt.NDArray[np.uint8]]

_P = 0x82F63B78  # the generator without x^32, its bits reflected
_DEGREE = 5685
# How far after a byte the three bytes are that it is added to.
_SHIFTS = (_DEGREE - 1362, _DEGREE - 426, _DEGREE)
_ONES = 0xFFFFFFFF
_ROW = 64  # bytes; their table fits into a processor's first caches


@functools.lru_cache(maxsize=None)
def _byte_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_P),
                                        np.uint32(0))
    return table


class _Tables:
    """The remainders of at most _DEGREE bytes, in rows of _ROW bytes."""

    def __init__(self) -> None:
        rows = -(-_DEGREE // _ROW)
        base = _byte_table()
        # Of each byte value with k bytes after it in its row: (_ROW, 256).
        in_row = np.empty((_ROW, 256), np.uint32)
        entry = base
        for place in reversed(range(_ROW)):
            in_row[place] = entry
            entry = (entry >> 8) ^ base[entry & 0xFF]
        self.in_row = in_row.reshape(-1)
        self.places = np.arange(_ROW, dtype=np.intp) * 256
        # Of each byte of a row's remainder with k rows after it:
        # (rows, 4, 256).
        after = np.empty((rows, 4, 256), np.uint32)
        after[-1] = np.arange(256, dtype=np.uint32) << np.array(
            [[0], [8], [16], [24]], np.uint32)
        step = after[-1]
        for _ in range(_ROW):
            step = (step >> 8) ^ base[step & 0xFF]
        for row in reversed(range(rows - 1)):
            before = after[row + 1]
            after[row] = (step[0][before & 0xFF] ^ step[1][before >> 8 & 0xFF]
                          ^ step[2][before >> 16 & 0xFF]
                          ^ step[3][before >> 24])
        self.after = after.reshape(-1)
        self.ends = np.arange(4 * rows, dtype=np.intp) * 256

    def remainder(self, data: npt.NDArray[np.uint8]) -> int:
        """That of at most _DEGREE bytes."""
        missing = -len(data) % _ROW
        if missing:  # Zeros in front change nothing.
            data = np.concatenate((np.zeros(missing, np.uint8), data))
        index = data.reshape(-1, _ROW) + self.places
        rows = np.bitwise_xor.reduce(self.in_row.take(index), axis=1)
        ends = rows.view(np.uint8) + self.ends[-4 * len(rows):]
        return int(np.bitwise_xor.reduce(self.after.take(ends)))


@functools.lru_cache(maxsize=None)
def _tables() -> _Tables:
    return _Tables()


class _Thread(threading.local):
    """Memory to work in, kept for the next checksum."""

    space = np.empty(0, np.uint8)

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        if len(self.space) < size:
            self.space = np.empty(size, np.uint8)
        return self.space[:size]


_thread = _Thread()


def _fold(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Adds bytes to later ones until at most _DEGREE are left, which have the
    same remainder as all."""
    size, scale = len(data), 1
    while 2 * scale * _DEGREE < size:
        scale *= 2
    # The first block is read where it lies; all that it is added to comes
    # after it.
    first = min(size - scale * _DEGREE, scale * _SHIFTS[0])
    work = _thread.take(size - first)
    work[:] = data[first:]
    _add(data[:first], work, -first, scale)
    begin, end = 0, len(work)
    while scale:
        last = end - scale * _DEGREE  # the end of what is added
        while begin < last:
            # No byte of a block may be one that the block adds to.
            stop = min(begin + scale * _SHIFTS[0], last)
            _add(work[begin:stop], work, begin, scale)
            begin = stop
        scale //= 2
    return work[begin:]


def _add(block: npt.NDArray[np.uint8], work: npt.NDArray[np.uint8],
         begin: int, scale: int) -> None:
    """Adds the block, which begins at work[begin], to the later bytes."""
    for shift in _SHIFTS:
        to = begin + scale * shift
        target = work[to:to + len(block)]
        np.bitwise_xor(target, block, out=target)


def numpy_crc32c(data: Buffer) -> int:
    """The checksum of the bytes, by numpy alone."""
    message = np.frombuffer(data, np.uint8)
    size = len(message)
    if size > _DEGREE:
        message = _fold(message)
    if not size:
        return 0
    return _tables().remainder(message) ^ _initial(size) ^ _ONES


def _choose() -> Any:
    try:
        import crc32c as library  # has the processor's own instructions
    except ImportError:
        return numpy_crc32c
    return library.crc32c


# The checksum of the bytes.
crc32c = _choose()


def _apply(columns: tuple[int, ...], value: int) -> int:
    out, i = 0, 0
    while value:
        if value & 1:
            out ^= columns[i]
        value >>= 1
        i += 1
    return out


@functools.lru_cache(maxsize=64)
def _zero_bytes_power(power: int) -> tuple[int, ...]:
    """What 2^power zero bytes make of each bit of the checksum."""
    if power == 0:
        table = _byte_table()
        return tuple((1 << i) >> 8 ^ int(table[(1 << i) & 0xFF])
                     for i in range(32))
    half = _zero_bytes_power(power - 1)
    return tuple(_apply(half, column) for column in half)


@functools.lru_cache(maxsize=1024)
def _zero_bytes(count: int) -> tuple[int, ...]:
    """What `count` zero bytes make of each bit of the checksum."""
    columns = tuple(1 << i for i in range(32))
    for power in range(count.bit_length()):
        if count >> power & 1:
            columns = tuple(_apply(_zero_bytes_power(power), column)
                            for column in columns)
    return columns


def combine(first: int, second: int, second_bytes: int) -> int:
    """The checksum of two pieces of data one after the other, from those of
    the pieces and the second one's size."""
    return _apply(_zero_bytes(second_bytes), first) ^ second


@functools.lru_cache(maxsize=1024)
def _initial(size: int) -> int:
    """What is left of the initial value after so many bytes."""
    return _apply(_zero_bytes(size), _ONES)
