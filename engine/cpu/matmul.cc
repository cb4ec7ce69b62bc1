#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/half.h"
#include "engine/cpu/aligned_array.h"
#include "engine/cpu/matmul.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
// Multiplies all rows of a block by one panel with `width` valid columns.
template <typename W>
HWY_ATTR void BlockTimesPanel(const float* a, size_t a_stride, size_t rows,
                              const W* panel, size_t k, bool add, size_t width,
                              float* c, size_t c_stride) {
  const size_t full = 2 * hn::Lanes(D());
  HWY_ALIGN float edge[kTileRows * 2 * HWY_MAX_BYTES / sizeof(float)];
  // Tiles have nearly equal sizes: 8 rows are 4 and 4, not 6 and a slow 2.
  size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (size_t r = 0; tiles > 0; --tiles) {
    const size_t n = (rows - r + tiles - 1) / tiles;
    const float* x = a + r * a_stride;
    float* out = c + r * c_stride;
    r += n;
    if (width == full) {
      TileOf<W>(n, x, a_stride, panel, full, k, add, out, c_stride);
      continue;
    }
    for (size_t i = 0; add && i < n; ++i) {
      std::memcpy(edge + i * full, out + i * c_stride, width * sizeof(float));
    }
    TileOf<W>(n, x, a_stride, panel, full, k, add, edge, full);
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(out + i * c_stride, edge + i * full, width * sizeof(float));
    }
  }
}

// Multiplies by several full panels at once if rows are few. Returns the first
// panel that is left.
template <typename W>
HWY_ATTR size_t FewRows(const float* a, size_t a_stride, size_t rows,
                        const W* weights, const PanelRange& range, float* out) {
  const size_t width = PanelWidth();
  const size_t stride = range.k_total * width;
  const size_t last = std::min(range.last, range.n / width);
  const bool add = range.k > 0;
  const auto run = [&](auto tile, size_t panels) HWY_ATTR {
    size_t p = range.first;
    for (; p + panels <= last; p += panels) {
      tile(weights + p * stride + range.k * width, out + p * width);
    }
    return p;
  };
  if (rows == 1) {
    return run(
        [&](const W* b, float* c) HWY_ATTR {
          Tile<1, 4>(a, a_stride, b, width, stride, range.depth, add, c,
                     range.n);
        },
        4);
  }
  if (rows == 2) {
    return run(
        [&](const W* b, float* c) HWY_ATTR {
          Tile<2, 2>(a, a_stride, b, width, stride, range.depth, add, c,
                     range.n);
        },
        2);
  }
  return range.first;
}

template <typename W>
HWY_ATTR void Block(const float* a, size_t a_stride, size_t rows,
                    const W* weights, const PanelRange& range, float* out,
                    float* wide) {
  const D d;
  const size_t width = PanelWidth();
  size_t p = FewRows(a, a_stride, rows, weights, range, out);
  for (; p < range.last; ++p) {
    const W* panel = weights + (p * range.k_total + range.k) * width;
    const size_t valid = std::min(width, range.n - p * width);
    float* c = out + p * width;
    if constexpr (!std::is_same_v<W, float>) {
      // The panel is widened once for all tiles of rows.
      if (rows > size_t{3} * kTileRows) {
        for (size_t i = 0; i < range.depth * width; i += hn::Lanes(d)) {
          hn::Store(Load(panel + i), d, wide + i);
        }
        BlockTimesPanel(a, a_stride, rows, wide, range.depth, range.k > 0,
                        valid, c, range.n);
        continue;
      }
    }
    BlockTimesPanel(a, a_stride, rows, panel, range.depth, range.k > 0, valid,
                    c, range.n);
  }
}

HWY_ATTR void BlockF32(const float* a, size_t a_stride, size_t rows,
                       const float* weights, const PanelRange& range,
                       float* out) {
  Block(a, a_stride, rows, weights, range, out, nullptr);
}

// `wide`: scratch (depth, panel width).
HWY_ATTR void BlockBF16(const float* a, size_t a_stride, size_t rows,
                        const uint16_t* bits, const PanelRange& range,
                        float* out, float* wide) {
  Block(a, a_stride, rows, reinterpret_cast<const hwy::bfloat16_t*>(bits),
        range, out, wide);
}

// Rounds the upper half of x's bits to the nearest bf16, ties to even. NaN
// stays NaN.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> RoundBits(V x) {
  const hn::RebindToUnsigned<D> u;
  const auto bits = hn::BitCast(u, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1u));
  const auto up = hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fffu)));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)),
                        hn::Or(bits, hn::Set(u, 0x400000u)), up);
}

// out = x rounded to bf16.
HWY_ATTR void RoundAllToBF16(const float* x, size_t n, float* out) {
  const D d;
  const hn::RebindToUnsigned<D> u;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto bits = RoundBits(hn::LoadU(d, x + i));
    const auto kept = hn::And(bits, hn::Set(u, 0xffff0000u));
    hn::StoreU(hn::BitCast(d, kept), d, out + i);
  }
  for (; i < n; ++i) out[i] = FromBF16(RoundToBF16(x[i]));
}

// Transposes rows (panel width, k) into a panel (k, panel width): float32 to
// `f32`, or, if that is null, bf16 to `bf16`. It goes square by square, because
// the rows of most models lie a power of two apart and so compete for the same
// few lines of the cache.
HWY_ATTR void PackPanel(const float* rows, size_t k, float* f32,
                        uint16_t* bf16) {
  constexpr size_t kSide = 16;
  const D d;
  const hn::Rebind<uint16_t, D> half;
  const size_t width = PanelWidth();
  HWY_ALIGN float square[kSide * 2 * HWY_MAX_BYTES / sizeof(float)];
  for (size_t begin = 0; begin < k; begin += kSide) {
    const size_t n = std::min(kSide, k - begin);
    for (size_t j = 0; j < width; ++j) {
      for (size_t i = 0; i < n; ++i) {
        square[i * width + j] = rows[j * k + begin + i];
      }
    }
    if (f32 != nullptr) {
      std::memcpy(f32 + begin * width, square, n * width * sizeof(float));
      continue;
    }
    for (size_t i = 0; i < n * width; i += hn::Lanes(d)) {
      const auto bits = RoundBits(hn::Load(d, square + i));
      hn::StoreU(hn::TruncateTo(half, hn::ShiftRight<16>(bits)), half,
                 bf16 + begin * width + i);
    }
  }
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
namespace {

HWY_EXPORT(PanelWidth);
HWY_EXPORT(BlockF32);
HWY_EXPORT(BlockBF16);
HWY_EXPORT(RoundAllToBF16);
HWY_EXPORT(PackPanel);

// The block that stays in a core's caches: rows of x, and extent along k.
struct Blocking {
  int64_t rows, k;
};
// 24 KiB of a panel and 144 KiB of x.
constexpr Blocking kBlocking = {96, 384};
// Processors with AVX-512 have at least 1 MiB of second-level cache. Larger
// blocks of rows read the weights less often.
constexpr Blocking kBlockingAvx512 = {192, 768};
// Two of the widest vectors (AVX-512).
constexpr int64_t kMaxPanelWidth = 32;
// Up to this many rows, reading the weights dominates the time.
constexpr int64_t kFewRows = 12;

class PackedMatrix final : public CpuMatrix {
 public:
  PackedMatrix(int64_t n, int64_t k, ComputeType type, const float* bias)
      : n_(n),
        k_(k),
        width_(static_cast<int64_t>(HWY_DYNAMIC_DISPATCH(PanelWidth)())),
        panels_((n + width_ - 1) / width_),
        blocking_(width_ == kMaxPanelWidth ? kBlockingAvx512 : kBlocking),
        type_(type) {
    if (bias != nullptr) bias_.assign(bias, bias + n);
  }

  absl::Status Pack(const RowReader& rows, ThreadPool& pool);

  int out_features() const override { return static_cast<int>(n_); }
  int in_features() const override { return static_cast<int>(k_); }
  int64_t bytes() const override {
    return panels_ * width_ * k_ * BytesOf(type_) +
           static_cast<int64_t>(bias_.size() * sizeof(float));
  }
  MatMulChoice choice() const override {
    return {absl::StrCat("own-", HighwayTarget()), ""};
  }

  void Multiply(const float* x, absl::Span<const Product> products, int rows,
                ThreadPool& pool) const override;

 private:
  void Block(const float* x, int64_t rows, int64_t first_panel,
             int64_t last_panel, float* out) const;
  void AddBlock(const float* x, int64_t rows, int64_t first_panel,
                int64_t last_panel, float* out) const;

  int64_t n_;
  int64_t k_;
  int64_t width_;  // columns of a panel
  int64_t panels_;
  Blocking blocking_;
  ComputeType type_;
  std::vector<float> bias_;
  // (panels, k, width); only one of the two is used.
  AlignedArray<float> f32_;
  AlignedArray<uint16_t> bf16_;
};

absl::Status PackedMatrix::Pack(const RowReader& rows, ThreadPool& pool) try {
  const int64_t total = panels_ * width_ * k_;
  if (type_ == ComputeType::kF32) {
    f32_ = AllocateAligned<float>(total);
  } else {
    bf16_ = AllocateAligned<uint16_t>(total);
  }
  std::vector<std::vector<float>> sources(pool.size());
  pool.For(panels_, [&](int64_t p, int thread) {
    const int64_t begin = p * width_;
    const int64_t valid = std::min(width_, n_ - begin);
    std::vector<float>& source = sources[thread];
    source.resize(width_ * k_);
    rows(begin, begin + valid, source.data());
    std::fill(source.begin() + valid * k_, source.end(), 0.0f);
    const int64_t base = p * width_ * k_;
    HWY_DYNAMIC_DISPATCH(PackPanel)
    (source.data(), k_, f32_ == nullptr ? nullptr : f32_.get() + base,
     bf16_ == nullptr ? nullptr : bf16_.get() + base);
  });
  return absl::OkStatus();
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError("no memory for packed weights");
}

void PackedMatrix::Block(const float* x, int64_t rows, int64_t first_panel,
                         int64_t last_panel, float* out) const {
  thread_local const AlignedArray<float> wide =
      AllocateAligned<float>(kBlockingAvx512.k * kMaxPanelWidth);
  // With few rows each panel is read once, from end to end.
  const int64_t step = rows <= kFewRows ? k_ : blocking_.k;
  for (int64_t k = 0; k < k_; k += step) {
    const PanelRange range{static_cast<size_t>(first_panel),
                           static_cast<size_t>(last_panel),
                           static_cast<size_t>(n_),
                           static_cast<size_t>(k),
                           static_cast<size_t>(std::min(step, k_ - k)),
                           static_cast<size_t>(k_)};
    if (type_ == ComputeType::kF32) {
      HWY_DYNAMIC_DISPATCH(BlockF32)(x + k, k_, rows, f32_.get(), range, out);
    } else {
      HWY_DYNAMIC_DISPATCH(BlockBF16)
      (x + k, k_, rows, bf16_.get(), range, out, wide.get());
    }
  }
  if (bias_.empty()) return;
  const int64_t end = std::min(last_panel * width_, n_);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = first_panel * width_; j < end; ++j) {
      out[r * n_ + j] += bias_[j];
    }
  }
}

// out += the block, which is computed as by Block, and then added.
void PackedMatrix::AddBlock(const float* x, int64_t rows, int64_t first_panel,
                            int64_t last_panel, float* out) const {
  thread_local std::vector<float> sums;
  sums.resize(std::max<size_t>(sums.size(), rows * n_));
  Block(x, rows, first_panel, last_panel, sums.data());
  const int64_t end = std::min(last_panel * width_, n_);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = sums.data() + r * n_;
    float* to = out + r * n_;
    for (int64_t j = first_panel * width_; j < end; ++j) to[j] += from[j];
  }
}

void PackedMatrix::Multiply(const float* x, absl::Span<const Product> products,
                            int rows, ThreadPool& pool) const {
  thread_local std::vector<float> rounded;
  if (type_ == ComputeType::kBF16) {
    rounded.resize(std::max<size_t>(rounded.size(), rows * k_));
    float* to = rounded.data();
    pool.For((rows + kFewRows - 1) / kFewRows, [&](int64_t block, int) {
      const int64_t first = block * kFewRows;
      const int64_t count = std::min<int64_t>(kFewRows, rows - first);
      HWY_DYNAMIC_DISPATCH(RoundAllToBF16)
      (x + first * k_, count * k_, to + first * k_);
    });
    x = to;
  }
  const auto matrix = [](const Product& product) -> const PackedMatrix& {
    return static_cast<const PackedMatrix&>(product.w);
  };
  int64_t panels = 0;
  for (const Product& product : products) panels += matrix(product).panels_;
  const int64_t row_blocks = (rows + blocking_.rows - 1) / blocking_.rows;
  // There are enough pieces that no thread waits long for the last one.
  const int64_t pieces = std::max<int64_t>(1, 6 * pool.size() / row_blocks);
  const int64_t group = std::max<int64_t>(1, (panels + pieces - 1) / pieces);
  // A piece is some panels of one product.
  struct Piece {
    const Product* product;
    int64_t first, last;
  };
  std::vector<Piece> all;
  for (const Product& product : products) {
    const int64_t end = matrix(product).panels_;
    for (int64_t p = 0; p < end; p += group) {
      all.push_back({&product, p, std::min(p + group, end)});
    }
  }
  const int64_t count = static_cast<int64_t>(all.size());
  pool.For(row_blocks * count, [&](int64_t task, int) {
    const int64_t row = (task / count) * blocking_.rows;
    const Piece& piece = all[task % count];
    const PackedMatrix& w = matrix(*piece.product);
    const auto run =
        piece.product->add ? &PackedMatrix::AddBlock : &PackedMatrix::Block;
    (w.*run)(x + row * k_, std::min(blocking_.rows, rows - row), piece.first,
             piece.last, piece.product->out + row * w.n_);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> PackHighway(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool) {
  auto matrix =
      std::make_unique<PackedMatrix>(out_features, in_features, type, bias);
  QK_RETURN_IF_ERROR(matrix->Pack(rows, pool));
  return matrix;
}

std::string HighwayTarget() {
  HWY_DYNAMIC_DISPATCH(PanelWidth)();  // selects the target
  const int64_t supported = hwy::SupportedTargets();
  return hwy::TargetName(supported & -supported);
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
