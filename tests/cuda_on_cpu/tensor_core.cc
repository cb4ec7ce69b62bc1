#include "tests/cuda_on_cpu/tensor_core.h"

#include <cstring>

namespace qk::cuda {
namespace {

using cuda_on_cpu::Block;
using cuda_on_cpu::Unseen;
using cuda_on_cpu::Warp;
using cuda_on_cpu::Where;

constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

struct MmaIn {
  uint32_t a[4], b[2];
  float c[4];
};
struct Registers {
  uint32_t r[4];
};

// d (16, 8) = a (16, 16) b (16, 8), in float32.
struct Tile {
  float a[16][16], b[16][8], d[16][8];

  void Read(int lane, const MmaIn& in) {
    const int g = lane / 4, t = lane % 4;
    const auto half = [](uint32_t pair, int i) {
      return Bf16ToFloat(static_cast<uint16_t>(pair >> (16 * i)));
    };
    for (int i = 0; i < 2; ++i) {
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][2 * t + i + 8 * (r / 2)] = half(in.a[r], i);
      }
      for (int r = 0; r < 2; ++r) b[2 * t + i + 8 * r][g] = half(in.b[r], i);
    }
  }
  void Multiply() {
    std::memset(d, 0, sizeof d);
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
      }
    }
  }
};

void MultiplyWarp(Warp& warp, uint8_t (*out)[16]) {
  Tile tile;
  MmaIn in[32];
  for (int lane = 0; lane < 32; ++lane) {
    std::memcpy(&in[lane], warp.in[lane], sizeof in[lane]);
    tile.Read(lane, in[lane]);
  }
  tile.Multiply();
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const float* c = in[lane].c;
    const float d[4] = {c[0] + tile.d[g][2 * t], c[1] + tile.d[g][2 * t + 1],
                        c[2] + tile.d[g + 8][2 * t],
                        c[3] + tile.d[g + 8][2 * t + 1]};
    std::memcpy(out[lane], d, sizeof d);
  }
}

template <bool kTransposed>
void LoadWarp(Warp& warp, uint8_t (*out)[16]) {
  for (int lane = 0; lane < 32; ++lane) {
    Registers got;
    for (int r = 0; r < 4; ++r) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = kTransposed ? 2 * (lane % 4) + i : lane / 4;
        const int column = kTransposed ? lane / 4 : 2 * (lane % 4) + i;
        std::memcpy(&pair[i], warp.in[8 * r + row] + 2 * column, 2);
      }
      got.r[r] = pair[0] | uint32_t{pair[1]} << 16;
    }
    std::memcpy(out[lane], &got, sizeof got);
  }
}

}  // namespace

void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         Where where) {
  MmaIn in;
  std::memcpy(in.a, a, sizeof a);
  std::memcpy(in.b, b, sizeof b);
  std::memcpy(in.c, d, sizeof d);
  const Registers got = Block::current().Meet<MmaIn, Registers>(
      kAllLanes, 2, in, where, &MultiplyWarp);
  std::memcpy(d, got.r, sizeof d);
}

void LoadMatrices(uint32_t (&out)[4], const uint16_t* row, bool transposed,
                  Where where) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    Block::current().Fail("ldmatrix of a row not aligned to 16 bytes", where);
  }
  Registers in;
  // Read by this very thread, so that TSan and ASan see it.
  for (int i = 0; i < 4; ++i) {
    in.r[i] = row[2 * i] | uint32_t{row[2 * i + 1]} << 16;
  }
  const Registers got = Block::current().Meet<Registers, Registers>(
      kAllLanes, transposed ? 3 : 4, in, where,
      transposed ? &LoadWarp<true> : &LoadWarp<false>);
  std::memcpy(out, got.r, sizeof out);
}

void CopyAsync16(void* to, const void* from, Where where) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    Block::current().Fail("cp.async not aligned to 16 bytes", where);
  }
  std::memset(to, 0xFF, 16);
  const Unseen unseen;
  Block::current().copies().back().push_back({to, from});
}

void CommitCopies() {
  const Unseen unseen;
  Block::current().copies().emplace_back();
}

void WaitForCopies(int groups_left) {
  std::vector<cuda_on_cpu::AsyncCopy> arrived;
  {
    const Unseen unseen;
    auto& groups = Block::current().copies();
    // The last group is open: cp.async.wait_group counts those before it.
    while (static_cast<int>(groups.size()) - 1 > groups_left) {
      arrived.insert(arrived.end(), groups.front().begin(),
                     groups.front().end());
      groups.erase(groups.begin());
    }
  }
  for (const auto& copy : arrived) std::memcpy(copy.to, copy.from, 16);
}

}  // namespace qk::cuda
