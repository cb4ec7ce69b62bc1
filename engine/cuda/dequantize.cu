#include "engine/base/check.h"
#include "engine/cuda/dequantize.h"
#include "engine/cuda/device.h"
#include "engine/cuda/quant_block.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;

// Neighbours write neighbours.
template <typename Block, typename T>
__global__ void __launch_bounds__(kThreads)
    DequantizeKernel(const uint8_t* blocks, int64_t elements, T* out) {
  const int64_t first =
      int64_t{blockIdx.x} * (kThreads * kPerThread) + threadIdx.x;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t i = first + j * kThreads;
    if (i >= elements) return;
    const uint8_t* block = blocks + i / Block::kElements * Block::kBytes;
    Store(out, i, Block::At(block, static_cast<int>(i % Block::kElements)));
  }
}

template <typename Block>
void DequantizeBlocks(const uint8_t* blocks, int64_t elements, ComputeType type,
                      void* out, Stream stream) {
  ForElement(type, [&](auto element) {
    using T = decltype(element);
    const int64_t grid = Blocks<int64_t>(elements, kThreads * kPerThread);
    Launch(DequantizeKernel<Block, T>, dim3(static_cast<unsigned>(grid)),
           dim3(kThreads), 0, stream, blocks, elements, static_cast<T*>(out));
  });
}

constexpr int kTile = 64;  // outputs, and inputs

// Words of a tile, as they lie in the layer. A line has one word more, so that
// lanes that read a column read from different banks.
template <bool kOfInputs>
struct Int4Tile {
  static constexpr int kLines = kOfInputs ? kTile / 8 : kTile;
  static constexpr int kColumns = kOfInputs ? kTile : kTile / 8;
  uint32_t words[kLines][kColumns + 1];
};

// A block for each tile. Words are read as they lie; threads that are
// neighbours write inputs that are neighbours.
template <bool kOfInputs, typename T>
__global__ void __launch_bounds__(kThreads) Int4Kernel(Int4Part part, T* out) {
  using Tile = Int4Tile<kOfInputs>;
  Tile& tile = Shared<Tile>();
  const int output0 = static_cast<int>(blockIdx.x) * kTile;
  const int input0 = static_cast<int>(blockIdx.y) * kTile;
  const int line0 = kOfInputs ? input0 / 8 : input0;
  const int column0 = kOfInputs ? output0 : output0 / 8;
  const int lines = kOfInputs ? part.in / 8 : part.in;
  const int columns = kOfInputs ? part.outputs : part.outputs / 8;
  for (int w = threadIdx.x; w < Tile::kLines * Tile::kColumns; w += kThreads) {
    const int l = w / Tile::kColumns, c = w % Tile::kColumns;
    if (line0 + l < lines && column0 + c < columns) {
      tile.words[l][c] = part.words[int64_t{line0 + l} * columns + column0 + c];
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < kTile * kTile; e += kThreads) {
    const int o = e / kTile, i = e % kTile;
    const int output = output0 + o, input = input0 + i;
    if (output >= part.outputs || input >= part.in) continue;
    const int nibble = kOfInputs ? i % 8 : o % 2 * 4 + o % 8 / 2;
    const uint32_t word =
        kOfInputs ? tile.words[i / 8][o] : tile.words[i][o / 8];
    const int group = part.group_of == nullptr ? input / part.group_size
                                               : part.group_of[input];
    const int64_t at = int64_t{group} * part.outputs + output;
    const int quant = static_cast<int>(word >> (4 * nibble) & 15);
    const float difference = static_cast<float>(quant - part.zeros[at]);
    Store(out, int64_t{output} * part.in + input, difference * part.scales[at]);
  }
}

template <bool kOfInputs, typename T>
void Unpack(const Int4Part& part, T* out, Stream stream) {
  const dim3 grid(Blocks(part.outputs, kTile), Blocks(part.in, kTile));
  Launch(Int4Kernel<kOfInputs, T>, grid, dim3(kThreads),
         sizeof(Int4Tile<kOfInputs>), stream, part, out);
}

}  // namespace

void Dequantize(DType stored, const uint8_t* blocks, int64_t elements,
                ComputeType type, void* out, Stream stream) {
  const auto run = [&](auto block) {
    DequantizeBlocks<decltype(block)>(blocks, elements, type, out, stream);
  };
  switch (stored) {
    case DType::kF32:
      return run(BlockF32());
    case DType::kF16:
      return run(BlockF16());
    case DType::kBF16:
      return run(BlockBF16());
    case DType::kI32:
      break;
    case DType::kQ4_0:
      return run(BlockQ4_0());
    case DType::kQ4_1:
      return run(BlockQ4_1());
    case DType::kQ5_0:
      return run(BlockQ5_0());
    case DType::kQ5_1:
      return run(BlockQ5_1());
    case DType::kQ8_0:
      return run(BlockQ8_0());
    case DType::kQ2_K:
      return run(BlockQ2_K());
    case DType::kQ3_K:
      return run(BlockQ3_K());
    case DType::kQ4_K:
      return run(BlockQ4_K());
    case DType::kQ5_K:
      return run(BlockQ5_K());
    case DType::kQ6_K:
      return run(BlockQ6_K());
    case DType::kIQ4_NL:
      return run(BlockIQ4_NL());
    case DType::kIQ4_XS:
      return run(BlockIQ4_XS());
    case DType::kMXFP4:
      return run(BlockMXFP4());
  }
  QK_CHECK(false);  // I32 holds no weights
}

void UnpackInt4(const Int4Part& part, ComputeType type, void* out,
                Stream stream) {
  ForElement(type, [&](auto element) {
    auto* const typed = static_cast<decltype(element)*>(out);
    if (part.words_of_inputs) {
      Unpack<true>(part, typed, stream);
    } else {
      Unpack<false>(part, typed, stream);
    }
  });
}

}  // namespace qk::cuda
