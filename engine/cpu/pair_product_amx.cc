// Pairs of bf16 values multiplied by TDPBF16PS, on tiles of AMX. No processor
// with AMX has run this yet: the tests run MultiplyByTiles on a model of the
// instructions, and the kernel checks itself before it is offered.
#include "engine/cpu/pair_product.h"
#include "engine/cpu/tiles_product.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <random>

#include "engine/base/half.h"

namespace qk::cpu {
namespace {

// The operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// The processor's tiles, of this thread. The registers have names that no
// compiler gives out, so that statements only have to stay in order.
class ProcessorTiles {
 public:
  ProcessorTiles() = default;
  ~ProcessorTiles() { asm volatile("tilerelease"); }
  ProcessorTiles(const ProcessorTiles&) = delete;
  ProcessorTiles& operator=(const ProcessorTiles&) = delete;

  void Configure(TileRows rows) {
    TileConfig config;
    const auto set = [&](int tile, size_t n) {
      config.rows[tile] = static_cast<uint8_t>(n);
      config.row_bytes[tile] = n == 0 ? 0 : kTileRowBytes;
    };
    for (int tile : {0, 1, 4}) set(tile, rows.upper);
    for (int tile : {2, 3, 5}) set(tile, rows.lower);
    for (int tile : {6, 7}) set(tile, kTileSide);
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  template <int kTile>
  void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  void Load(const void* from, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride),
                 "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  void Store(void* to, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride),
                 "i"(kTile)
                 : "memory");
  }
  template <int kSums, int kA, int kB>
  void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA),
                 "i"(kB));
  }
};

void Multiply(const PairProduct& product) {
  ProcessorTiles tiles;
  MultiplyByTiles(tiles, product);
}

// Whether processor and operating system have AMX for bf16, and let this
// process use it.
bool MayUse() {
  unsigned int a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned int kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Whether products of random numbers come out right: within float32's error of
// sums in double, and a row alone as beside others.
bool IsRight(const PairKernel& kernel) {
  constexpr size_t kRows = 45, kPairs = 48, kPanels = 2;
  constexpr size_t kK = 2 * kPairs, kN = kPanels * kTilesWidth;
  std::mt19937 random(1);
  std::vector<uint16_t> a(kRows * kK), b(kPairs * kN * 2);
  for (auto* values : {&a, &b}) {
    for (uint16_t& x : *values) {
      x = RoundToBF16(static_cast<float>(random()) / 2147483648.0f - 1.0f);
    }
  }
  std::vector<float> c(kRows * kN, 1.0f), alone(kN, 1.0f);
  PairProduct p;
  p.a = a.data();
  p.a_stride = kK;
  p.rows = kRows;
  p.b = b.data();
  p.b_stride = 2 * kN;
  p.panel_stride = 2 * kTilesWidth;
  p.panels = kPanels;
  p.pairs = kPairs;
  p.into = Into::kContinue;
  p.c = c.data();
  p.c_stride = kN;
  kernel.multiply(p);
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t n = 0; n < kN; ++n) {
      double sum = 1;
      for (size_t k = 0; k < kK; ++k) {
        sum += double{FromBF16(a[row * kK + k])} *
               FromBF16(b[k / 2 * 2 * kN + 2 * n + k % 2]);
      }
      if (!(std::abs(c[row * kN + n] - sum) < 1e-4)) return false;
    }
  }
  p.a = a.data() + (kRows - 1) * kK;
  p.rows = 1;
  p.c = alone.data();
  kernel.multiply(p);
  return std::memcmp(alone.data(), c.data() + (kRows - 1) * kN,
                     kN * sizeof(float)) == 0;
}

}  // namespace

const PairKernel* AmxPairKernel() {
  static const PairKernel* const kernel = []() -> const PairKernel* {
    const PairKernel* round = Avx512Bf16PairKernel();
    if (round == nullptr || !MayUse()) return nullptr;
    static const PairKernel amx = {"AMX",        kTilesWidth,
                                   kTilePairs,   sizeof(uint16_t),
                                   round->round, Multiply};
    return IsRight(amx) ? &amx : nullptr;
  }();
  return kernel;
}

}  // namespace qk::cpu

#else

namespace qk::cpu {
const PairKernel* AmxPairKernel() { return nullptr; }
}  // namespace qk::cpu

#endif
