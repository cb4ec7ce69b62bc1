"""Memory for the tensors of one large stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SLAB_BYTES = 32 << 20
_LEAST_BYTES = 8 << 20
_ALIGNMENT = 64


class Slabs:
    """Gives out parts of large arrays, which numpy puts on huge pages: the
    first touch of as many small pages takes longer than all checks of what is
    written there. A part keeps its whole slab alive.

    expected: bytes in all; small streams get arrays of their own.
    """

    def __init__(self, expected: int) -> None:
        self._large = expected >= _LEAST_BYTES
        self._slab = np.empty(0, np.uint8)
        self._used = 0

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """An array of this size, whose content is not set. MemoryError or
        ValueError: there cannot be one."""
        if not self._large or size > _SLAB_BYTES // 4:
            return np.empty(size, np.uint8)
        if self._used + size > len(self._slab):
            self._slab = np.empty(_SLAB_BYTES, np.uint8)
            self._used = 0
        part = self._slab[self._used:self._used + size]
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return part
