#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cstring>

#include "engine/check.h"
#include "engine/cpu/matmul.h"
#include "engine/cpu/tile-inl.h"
#include "engine/half.h"
#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
// All rows of a block against one panel of `width` valid columns.
template <typename W>
HWY_ATTR void BlockTimesPanel(const float* a, size_t a_stride, size_t rows,
                              const W* panel, size_t k, bool add, size_t width,
                              float* c, size_t c_stride) {
  const size_t full = 2 * hn::Lanes(D());
  HWY_ALIGN float edge[kTileRows * 2 * HWY_MAX_BYTES / sizeof(float)];
  for (size_t r = 0; r < rows; r += kTileRows) {
    const size_t n = std::min<size_t>(kTileRows, rows - r);
    float* out = c + r * c_stride;
    if (width == full) {
      TileOf<W>(n, a + r * a_stride, a_stride, panel, full, k, add, out,
                c_stride);
      continue;
    }
    for (size_t i = 0; add && i < n; ++i) {
      std::memcpy(edge + i * full, out + i * c_stride, width * sizeof(float));
    }
    TileOf<W>(n, a + r * a_stride, a_stride, panel, full, k, add, edge, full);
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(out + i * c_stride, edge + i * full, width * sizeof(float));
    }
  }
}

HWY_ATTR void BlockF32(const float* a, size_t a_stride, size_t rows,
                       const float* panel, size_t k, bool add, size_t width,
                       float* c, size_t c_stride) {
  BlockTimesPanel(a, a_stride, rows, panel, k, add, width, c, c_stride);
}

// Weights stay bf16 in memory; for more than one tile of rows they are widened
// once into `wide` (k, panel width).
HWY_ATTR void BlockBF16(const float* a, size_t a_stride, size_t rows,
                        const uint16_t* bits, size_t k, bool add, size_t width,
                        float* c, size_t c_stride, float* wide) {
  const D d;
  const auto* panel = reinterpret_cast<const hwy::bfloat16_t*>(bits);
  if (rows <= static_cast<size_t>(kTileRows)) {
    BlockTimesPanel(a, a_stride, rows, panel, k, add, width, c, c_stride);
    return;
  }
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < k * 2 * lanes; i += lanes) {
    hn::Store(Load(panel + i), d, wide + i);
  }
  BlockTimesPanel(a, a_stride, rows, wide, k, add, width, c, c_stride);
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
namespace {

HWY_EXPORT(PanelWidth);
HWY_EXPORT(BlockF32);
HWY_EXPORT(BlockBF16);

// Rows of x that stay in the second-level cache while a panel passes by.
constexpr int64_t kBlockRows = 96;
// Two of the widest vectors there are (AVX-512).
constexpr int64_t kMaxPanelWidth = 32;
// Steps of k for which a panel stays in the first-level cache.
constexpr int64_t kBlockK = 384;

class PackedMatrix final : public CpuMatrix {
 public:
  PackedMatrix(int64_t n, int64_t k, ComputeType type, const float* bias)
      : n_(n),
        k_(k),
        width_(static_cast<int64_t>(HWY_DYNAMIC_DISPATCH(PanelWidth)())),
        panels_((n + width_ - 1) / width_),
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

  void Multiply(const float* x, int rows, float* out,
                ThreadPool& pool) const override;

 private:
  void Block(const float* x, int64_t rows, int64_t first_panel,
             int64_t last_panel, float* out) const;

  int64_t n_;
  int64_t k_;
  int64_t width_;  // columns of a panel
  int64_t panels_;
  ComputeType type_;
  std::vector<float> bias_;
  // (panels, k, width): one of the two.
  hwy::AlignedFreeUniquePtr<float[]> f32_;
  hwy::AlignedFreeUniquePtr<uint16_t[]> bf16_;
};

absl::Status PackedMatrix::Pack(const RowReader& rows, ThreadPool& pool) {
  const int64_t total = panels_ * width_ * k_;
  if (type_ == ComputeType::kF32) {
    f32_ = hwy::AllocateAligned<float>(total);
  } else {
    bf16_ = hwy::AllocateAligned<uint16_t>(total);
  }
  if (f32_ == nullptr && bf16_ == nullptr) {
    return absl::ResourceExhaustedError("no memory for packed weights");
  }
  pool.For(panels_, [&](int64_t p, int) {
    const int64_t begin = p * width_;
    const int64_t valid = std::min(width_, n_ - begin);
    std::vector<float> source(width_ * k_, 0.0f);
    rows(begin, begin + valid, source.data());
    const int64_t base = p * width_ * k_;
    for (int64_t i = 0; i < k_; ++i) {
      for (int64_t j = 0; j < width_; ++j) {
        const float w = source[j * k_ + i];
        if (type_ == ComputeType::kF32) {
          f32_[base + i * width_ + j] = w;
        } else {
          bf16_[base + i * width_ + j] = RoundToBF16(w);
        }
      }
    }
  });
  return absl::OkStatus();
}

void PackedMatrix::Block(const float* x, int64_t rows, int64_t first_panel,
                         int64_t last_panel, float* out) const {
  thread_local hwy::AlignedFreeUniquePtr<float[]> wide =
      hwy::AllocateAligned<float>(kBlockK * kMaxPanelWidth);
  thread_local hwy::AlignedFreeUniquePtr<float[]> rounded =
      hwy::AllocateAligned<float>(kBlockRows * kBlockK);
  for (int64_t k = 0; k < k_; k += kBlockK) {
    const int64_t depth = std::min(kBlockK, k_ - k);
    const float* a = x + k;
    int64_t a_stride = k_;
    if (type_ == ComputeType::kBF16) {
      for (int64_t r = 0; r < rows; ++r) {
        RoundRowToBF16(x + r * k_ + k, depth, rounded.get() + r * depth);
      }
      a = rounded.get();
      a_stride = depth;
    }
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const int64_t offset = (p * k_ + k) * width_;
      const int64_t valid = std::min(width_, n_ - p * width_);
      float* c = out + p * width_;
      if (type_ == ComputeType::kF32) {
        HWY_DYNAMIC_DISPATCH(BlockF32)
        (a, a_stride, rows, f32_.get() + offset, depth, k > 0, valid, c, n_);
      } else {
        HWY_DYNAMIC_DISPATCH(BlockBF16)
        (a, a_stride, rows, bf16_.get() + offset, depth, k > 0, valid, c, n_,
         wide.get());
      }
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

void PackedMatrix::Multiply(const float* x, int rows, float* out,
                            ThreadPool& pool) const {
  const int64_t row_blocks = (rows + kBlockRows - 1) / kBlockRows;
  // Enough pieces that no thread waits long for the last one.
  const int64_t pieces = std::max<int64_t>(1, 6 * pool.size() / row_blocks);
  const int64_t group = std::max<int64_t>(1, (panels_ + pieces - 1) / pieces);
  const int64_t groups = (panels_ + group - 1) / group;
  pool.For(row_blocks * groups, [&](int64_t task, int) {
    const int64_t row = (task / groups) * kBlockRows;
    const int64_t first = (task % groups) * group;
    Block(x + row * k_, std::min<int64_t>(kBlockRows, rows - row), first,
          std::min(first + group, panels_), out + row * n_);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> PackOwn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool) {
  auto matrix =
      std::make_unique<PackedMatrix>(out_features, in_features, type, bias);
  QK_RETURN_IF_ERROR(matrix->Pack(rows, pool));
  return matrix;
}

std::string OwnKernelTarget() {
  HWY_DYNAMIC_DISPATCH(PanelWidth)();  // chooses the target
  const int64_t supported = hwy::SupportedTargets();
  return hwy::TargetName(supported & -supported);
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
