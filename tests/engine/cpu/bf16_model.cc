#include "tests/engine/cpu/bf16_model.h"

#include "engine/base/target_clones.h"

namespace qk::testing {
namespace {

constexpr size_t kSide = cpu::kTileSide;

// A row of sums += a row of a times b; halves of pairs have sums of their own.
QK_TARGET_CLONES("arch=haswell", "default")
void DotRow(float* sums, const uint16_t* a,
            const uint8_t (*b)[cpu::kTileRowBytes]) {
  float first[kSide] = {}, second[kSide] = {};
  for (size_t k = 0; k < cpu::kTilePairs; ++k) {
    uint16_t pairs[2 * kSide];
    std::memcpy(pairs, b[k], sizeof(pairs));
    const float x = FromBF16(a[2 * k]), y = FromBF16(a[2 * k + 1]);
    for (size_t n = 0; n < kSide; ++n) {
      first[n] = FusedMultiplyAdd(x, FromBF16(pairs[2 * n]), first[n]);
      second[n] = FusedMultiplyAdd(y, FromBF16(pairs[2 * n + 1]), second[n]);
    }
  }
  for (size_t n = 0; n < kSide; ++n) {
    sums[n] = Flush(Flush(sums[n]) + Flush(first[n] + second[n]));
  }
}

void Round(const float* x, size_t n, void* out) {
  auto* to = static_cast<uint16_t*>(out);
  for (size_t i = 0; i < n; ++i) to[i] = RoundToBF16(x[i]);
  if (n % 2 != 0) to[n] = 0;
}

void Multiply(const cpu::PairProduct& product) {
  ModelTiles tiles;
  cpu::MultiplyByTiles(tiles, product);
}

}  // namespace

void ModelTiles::DotTiles(Tile& sums, const Tile& a, const Tile& b,
                          size_t rows) {
  for (size_t m = 0; m < rows; ++m) {
    float to[kSide];
    uint16_t from[2 * kSide];
    std::memcpy(to, sums[m], sizeof(to));
    std::memcpy(from, a[m], sizeof(from));
    DotRow(to, from, b);
    std::memcpy(sums[m], to, sizeof(to));
  }
}

const cpu::PairKernel& TilesModelKernel() {
  static const cpu::PairKernel kernel = {"AMX-MODEL",     cpu::kTilesWidth,
                                         cpu::kTilePairs, sizeof(uint16_t),
                                         Round,           Multiply};
  return kernel;
}

}  // namespace qk::testing
