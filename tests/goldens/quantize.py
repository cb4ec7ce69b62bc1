"""4-bit linear layers as AWQ and GPTQ checkpoints store them.

Written from the published layouts (AutoAWQ's GEMM version, AutoGPTQ's format
v1). I inputs, O outputs, G groups of inputs; a word is 32 bits, nibble 0 its
lowest. Weight of input i and output o, g the group of i:

    w[o, i] = (q[i, o] - zero[g, o]) * scale[g, o]

AWQ   qweight (I, O / 8): nibble n of word c is q[i, 8 c + AWQ_ORDER[n]]
      qzeros  (G, O / 8): the same of zero[g]
      scales  (G, O) F16
      Group g is inputs g * group_size to (g + 1) * group_size.
GPTQ  qweight (I / 8, O): nibble n of word r is q[8 r + n, o]
      qzeros  (G, O / 8): nibble n of word c is zero[g, 8 c + n] - 1
      scales  (G, O) F16
      g_idx   (I): the group of each input
      Zeros are 1 to 15: readers disagree on what nibble 15 (zero 0 or 16) is.

A float16 scale times an integer under 16 is exact in float32, so the float32
weights have no rounding in them.
"""

import dataclasses

import numpy as np

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclasses.dataclass
class Quantized:
    """q (I, O) 0 to 15; zeros (G, O); scales (G, O) F16; group (I,)."""

    q: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray
    group: np.ndarray

    def weight(self) -> np.ndarray:
        """Returns the weight (O, I) in F32."""
        zeros = self.zeros[self.group].astype(np.float32)
        scales = self.scales[self.group].astype(np.float32)
        return ((self.q.astype(np.float32) - zeros) * scales).T.copy()


def groups_in_order(inputs: int, group_size: int) -> np.ndarray:
    """Returns the group of each input; group_size -1 means one for all."""
    size = inputs if group_size == -1 else group_size
    assert inputs % size == 0
    return np.arange(inputs) // size


def groups_by_activation(
    inputs: int, group_size: int, random: np.random.Generator
) -> np.ndarray:
    """Groups inputs in order of their importance, like desc_act."""
    group = np.empty(inputs, dtype=np.int64)
    group[random.permutation(inputs)] = groups_in_order(inputs, group_size)
    return group


def quantize(
    weight: np.ndarray, group: np.ndarray, symmetric: bool
) -> Quantized:
    """Rounds weight (O, I) to nearest."""
    outputs, inputs = weight.shape
    count = group.max() + 1
    zeros = np.empty((count, outputs), dtype=np.int64)
    scales = np.empty((count, outputs), dtype=np.float16)
    for g in range(count):
        part = weight[:, group == g]
        low = np.minimum(part.min(axis=1), 0.0)
        high = np.maximum(part.max(axis=1), 0.0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scales[g] = (high - low) / 15
        zero = np.rint(-low / scales[g].astype(np.float32))
        zeros[g] = 8 if symmetric else np.clip(zero, 1, 15)
    q = np.rint(weight.T / scales[group].astype(np.float32)) + zeros[group]
    return Quantized(np.clip(q, 0, 15).astype(np.int64), zeros, scales, group)


def _words(nibbles: np.ndarray) -> np.ndarray:
    """Packs (..., 8) values 0 to 15, lowest first, into (...) int32."""
    shifts = np.arange(0, 32, 4, dtype=np.uint64)
    words = (nibbles.astype(np.uint64) << shifts).sum(axis=-1)
    return words.astype(np.uint32).view(np.int32)


def pack_awq(linear: Quantized) -> dict[str, np.ndarray]:
    def pack(values: np.ndarray) -> np.ndarray:
        by_word = values.reshape(values.shape[0], -1, 8)
        return _words(by_word[:, :, list(AWQ_ORDER)])

    return {
        "qweight": pack(linear.q),
        "qzeros": pack(linear.zeros),
        "scales": linear.scales,
    }


def pack_gptq(linear: Quantized) -> dict[str, np.ndarray]:
    inputs, outputs = linear.q.shape
    by_row = linear.q.reshape(inputs // 8, 8, outputs)
    stored_zeros = (linear.zeros - 1).reshape(len(linear.zeros), -1, 8)
    return {
        "qweight": _words(by_row.transpose(0, 2, 1)),
        "qzeros": _words(stored_zeros),
        "scales": linear.scales,
        "g_idx": linear.group.astype(np.int32),
    }


def crc32c(data: bytes) -> int:
    """Computes the Castagnoli CRC, reflected, as in RFC 3720."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
