"""Makes the dequantisation goldens: random blocks and what gguf makes of them.

Needs the Python packages gguf and numpy (made with gguf 0.19.0, numpy 2.4.6):

    python make_dequant_goldens.py

writes one <type>.bin a type beside this file: uint32 number of elements, the
blocks, then the elements as float32; NaN is written as 0x7fc00000.
"""

import pathlib

import gguf
import numpy as np

# Each type has a block count, and the places of float16 values (d, then min).
TYPES = {
    "F32": (256, []),
    "F16": (2048, [0]),
    "BF16": (2048, []),
    "Q4_0": (48, [0]),
    "Q4_1": (48, [0, 2]),
    "Q5_0": (48, [0]),
    "Q5_1": (48, [0, 2]),
    "Q8_0": (48, [0]),
    "Q2_K": (14, [80, 82]),
    "Q3_K": (14, [108]),
    "Q4_K": (14, [0, 2]),
    "Q5_K": (14, [0, 2]),
    "Q6_K": (14, [208]),
    "IQ4_NL": (48, [0]),
    "IQ4_XS": (14, [0]),
    "MXFP4": (256, []),
}
# Zeros, subnormals, the ends of the range, 1, infinities, and NaN.
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00,
           0x7C00, 0xFC00, 0x7E00, 0xFC01]


def random_blocks(rng, count, block_bytes, halves):
    """Makes random bytes with every special value once in each half."""
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for number, at in enumerate(halves):
        usual = rng.normal(0, 0.02, count).astype(np.float16)
        values = usual.view(np.uint16)
        values[:len(SPECIAL)] = np.roll(SPECIAL, 5 * number)
        blocks[:, at:at + 2] = values.astype("<u2").view(np.uint8).reshape(
            count, 2)
    return blocks


def main():
    folder = pathlib.Path(__file__).parent
    for name, (count, halves) in TYPES.items():
        kind = gguf.GGMLQuantizationType[name]
        block_elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        rng = np.random.default_rng(int(kind) + 1)
        blocks = random_blocks(rng, count, block_bytes, halves)
        if name == "F16":
            # Half of the values cover the whole range, not only typical ones.
            blocks[count // 2:] = rng.integers(0, 256, (count // 2, 2))
        if name == "MXFP4":
            blocks[:, 0] = np.arange(256)  # all exponents
        with np.errstate(all="ignore"):
            values = gguf.dequantize(blocks.reshape(-1), kind)
        values = values.astype(np.float32).reshape(-1)
        assert values.size == count * block_elements
        bits = values.view(np.uint32).copy()
        bits[np.isnan(values)] = 0x7FC00000
        (folder / f"{name.lower()}.bin").write_bytes(
            np.uint32(values.size).tobytes() + blocks.tobytes() +
            bits.tobytes())


if __name__ == "__main__":
    main()
