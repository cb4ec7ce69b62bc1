"""The bugs that planted_bugs.py plants. Each replaces a text that the file has
exactly once."""

import dataclasses


@dataclasses.dataclass
class Bug:
    name: str
    test: str  # cuda_TEST_kernels_test
    filter: str  # of its cases
    kernel: str  # the file to compile
    old: str
    new: str
    file: str = ""  # that has the bug; the kernel's own by default

    def __post_init__(self):
        self.file = self.file or self.kernel


NORM = ("row", "NormKernelTest.*", "norm.cu")
BF16 = ("attention", "*IsThatOfTheOracle*/BF16", "attention_bf16.cu")
F32 = ("attention", "*IsThatOfTheOracle*/F32", "attention_f32.cu")
MERGE = ("attention", "*IsThatOfTheOracle*/BF16", "attention.cu")
MATMUL = ("matmul", "*/BF16", "matmul.cu")
SELECT = ("disrupt", "DisruptKernelTest.*", "disrupt.cu")
MOMENTS = ("hook", "MomentsKernelTest.*", "moments.cu")
LOGITS = ("logits", "LogitsKernelTest.*", "logits.cu")
MAMBA = ("logits", "MambaKernelTest.*", "mamba.cu")
BLOCKS = ("dequantize", "Types/*", "dequantize.cu")
INT4 = ("dequantize", "Int4KernelTest.*", "dequantize.cu")

BUGS = [
    # What threads do to each other.
    Bug("no barrier before a sum is read", *NORM,
        "  __syncthreads();\n  x = scratch[0];", "  x = scratch[0];",
        "reduce.h"),
    Bug("no barrier before scratch memory is used again", *NORM,
        "  __syncthreads();  // all have read the result before\n", "",
        "reduce.h"),
    Bug("K is loaded over one that is still read", *BF16,
        "    __syncthreads();  // K is free\n", ""),
    Bug("V is loaded over one that is still read", *BF16,
        "    __syncthreads();  // V is free\n", ""),
    Bug("no wait for K's copies", *BF16,
        "    CopyAsyncWait<1>();\n    __syncthreads();  // K is there",
        "    __syncthreads();  // K is there"),
    Bug("a barrier that one warp does not reach", *BF16,
        "    __syncthreads();  // K is free",
        "    if (threadIdx.x >= 32) __syncthreads();  // K is free"),
    Bug("a shuffle that one lane does not reach", *NORM,
        "  for (int lanes = 16; lanes > 0; lanes /= 2) {\n"
        "    x += __shfl_xor_sync",
        "  if (threadIdx.x % 32 < 31) for (int lanes = 16; lanes > 0; "
        "lanes /= 2) {\n    x += __shfl_xor_sync", "reduce.h"),
    Bug("lane 0 writes what other lanes still read", *MAMBA,
        "    __syncwarp();  // all have read the input\n", ""),
    Bug("a stage is loaded over one that is still read", *MATMUL,
        "    load(step + T::kStages - 1);", "    load(step + T::kStages);"),
    Bug("a stage is read before its copies arrive", *MATMUL,
        "    CopyAsyncWait<T::kStages - 2>();",
        "    CopyAsyncWait<T::kStages - 1>();"),
    Bug("two blocks write one row", *NORM,
        "Write(a.out, row * a.dim + i, y)",
        "Write(a.out, row / 2 * a.dim + i, y)"),
    # Memory.
    Bug("shared memory one float short", *NORM,
        "float warps[kThreads / 32];", "float warps[kThreads / 32 - 1];"),
    Bug("one float too many is read", *NORM,
        "for (int i = first; i < a.dim; i += kStep) {\n    squares",
        "for (int i = first; i <= a.dim; i += kStep) {\n    squares"),
    Bug("rows of shared memory that ldmatrix cannot read", *BF16,
        "uint16_t k[kDim][kKeys + 8];", "uint16_t k[kDim][kKeys + 4];",
        "attention_bf16.h"),
    Bug("what pads a head is not 0", *BF16,
        "    shared.k[dim + i / kKeys][i % kKeys] = 0;\n", ""),
    Bug("the last of several slots is not written", "attention",
        "*AppendKv*", "kv_cache.cu", "if (r >= tile.rows) continue;",
        "if (r + 1 >= tile.rows) continue;"),
    # Numbers.
    Bug("rows of a fragment are swapped", *BF16,
        "FloatsToBf16(s[j][0], s[j][1])", "FloatsToBf16(s[j][2], s[j][3])"),
    Bug("a later position's NaN enters the product", "attention",
        "*ANanReaches*/BF16", "attention_bf16.cu",
        "if (!IsFinite(piece[e])) piece[e] = 0;",
        "if (piece[e] == 0xFF80) piece[e] = 0;", "attention_bf16.h"),
    Bug("a seen NaN is lost", "attention", "*ANanReaches*/BF16",
        "attention_bf16.cu", "if (!(value < 0))", "if (value > 0)",
        "attention_bf16.h"),
    Bug("a window is one key too long", *F32,
        "position - shape.window + 1\n",
        "position - shape.window\n", "attention_tile.h"),
    Bug("a segment's weights are not rescaled", *MERGE,
        "total = total * f.old + segment[d] * f.added;",
        "total = total + segment[d] * f.added;"),
    Bug("slices are added in another order", *MATMUL,
        "const int64_t at = int64_t{slice} * a.shape.rows + row;",
        "const int64_t at = int64_t{slices - 1 - slice} * a.shape.rows + row;"),
    Bug("a chain goes on from slice to slice", *MATMUL,
        "(step + 1) % (kSliceDepth / kDepth) == 0 || ", ""),
    Bug("one span of positions for all", *MOMENTS,
        "span += kSpans) {", "span += last + 1) {"),
    Bug("ties go to the highest dim", *SELECT,
        "first = d < dim;", "first = d > dim;", "rank.h"),
    Bug("a value that is not finite is chosen", *SELECT,
        "    if (!IsFinite(m.squares[d])) m.chosen[d] = 0;",
        "    if (m.squares[d] < 0) m.chosen[d] = 0;", "rank.h"),
    Bug("another random number", *SELECT,
        "key1 += 0xBB67AE85;", "key1 += 0xBB67AE86;", "philox.h"),
    Bug("-0 ranks below 0", *LOGITS, "FloatBits(x + 0.0f)", "FloatBits(x)"),
    Bug("high nibbles and low ones are swapped", *BLOCKS,
        "from[i % 16] >> (i / 16 * 4) & 15",
        "from[i % 16] >> (4 - i / 16 * 4) & 15", "quant_block.h"),
    Bug("a neighbour's scale", *BLOCKS, "const int packed = b[i / 16];",
        "const int packed = b[i / 32];", "quant_block.h"),
    Bug("the last scales have no high bits", *BLOCKS,
        "(packed[part + 4] & 15) | packed[part - 4] >> 6 << 4",
        "packed[part + 4] & 15", "quant_block.h"),
    Bug("a subnormal scale is 0", *BLOCKS,
        "static_cast<float>(static_cast<int>(rest)) * 0x1p-24f", "0.0f",
        "quant_block.h"),
    Bug("a NaN is infinite", *BLOCKS,
        "if (rest >= 0x7C00) bits += rebias;",
        "if (rest >= 0x7C00) bits = 0x7F800000;", "quant_block.h"),
    Bug("-0 where the table has 0", *BLOCKS,
        "Scaled(BitsToFloat(scale), nibble < 8 ? value : -value)",
        "(nibble < 8 ? 1.0f : -1.0f) * Scaled(BitsToFloat(scale), value)",
        "quant_block.h"),
    Bug("blocks are a byte too far apart", *BLOCKS,
        "kElements = 32, kBytes = 17", "kElements = 32, kBytes = 18",
        "quant_block.h"),
    Bug("the tail is not written", *BLOCKS, "if (i >= elements) return;",
        "if (i + 1 >= elements) return;"),
    Bug("bf16 is cut, not rounded", *BLOCKS,
        "Store(out, i, Block::At(block, static_cast<int>(i % "
        "Block::kElements)));",
        "Store(out, i, BitsToFloat(FloatBits(Block::At(block, "
        "static_cast<int>(i % Block::kElements))) & 0xFFFF0000u));"),
    Bug("AWQ's outputs in order", *INT4, "o % 2 * 4 + o % 8 / 2", "o % 8"),
    Bug("groups of consecutive inputs only", *INT4,
        "part.group_of == nullptr", "true || part.group_of == nullptr"),
    Bug("a group's scales are those of the next output", *INT4,
        "int64_t{group} * part.outputs + output;",
        "int64_t{group} * part.outputs + (output ^ 1);"),
    Bug("a zero that is scaled by itself", *INT4,
        "difference * part.scales[at]",
        "(difference + part.zeros[at]) * part.scales[at] - "
        "part.zeros[at] * part.scales[at]"),
    Bug("rows of a tile's width", *INT4,
        "int64_t{output} * part.in + input",
        "int64_t{output} * (part.in / kTile * kTile) + input"),
    Bug("no barrier before words are read", *INT4, "  __syncthreads();\n", ""),
    Bug("jobs beyond the first list are lost", "hook", "JobListTest.*",
        "moments.cu", "i < count; i += kMany", "i < 1; i += kMany",
        "job_list.h"),
]
