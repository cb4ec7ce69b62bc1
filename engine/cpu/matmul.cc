#include "engine/cpu/matmul.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cpu/aligned_array.h"
#include "engine/cpu/pair_product.h"
#include "engine/cpu/panels.h"

namespace qk::cpu {
namespace {

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
  // pairs: the kernel for bf16; null for float32.
  PackedMatrix(int64_t n, int64_t k, const PairKernel* pairs, const float* bias)
      : n_(n),
        k_(k),
        kernel_(pairs),
        width_(static_cast<int64_t>(pairs == nullptr ? F32PanelWidth()
                                                     : pairs->width)),
        panels_((n + width_ - 1) / width_),
        depth_(pairs == nullptr ? k : RoundUp(k, 2 * pairs->pair_step)),
        blocking_(width_ == kMaxPanelWidth ? kBlockingAvx512 : kBlocking) {
    if (bias != nullptr) bias_.assign(bias, bias + n);
  }

  absl::Status Pack(const RowReader& rows, ThreadPool& pool);

  int out_features() const override { return static_cast<int>(n_); }
  int in_features() const override { return static_cast<int>(k_); }
  int64_t bytes() const override {
    return panels_ * width_ * depth_ *
               BytesOf(kernel_ == nullptr ? ComputeType::kF32
                                          : ComputeType::kBF16) +
           static_cast<int64_t>(bias_.size() * sizeof(float));
  }
  MatMulChoice choice() const override {
    return {kernel_ == nullptr ? absl::StrCat("own-", HighwayTarget())
                               : PairKernelName(*kernel_),
            ""};
  }

  void Multiply(const float* x, absl::Span<const Product> products, int rows,
                ThreadPool& pool) const override;

 private:
  // x as the kernel reads it: (rows, stride) elements.
  struct Input {
    const uint8_t* data;
    int64_t stride;
    int64_t element_bytes;
    const uint8_t* At(int64_t row, int64_t k) const {
      return data + (row * stride + k) * element_bytes;
    }
  };
  static int64_t RoundUp(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
  }
  Input Prepare(const float* x, int rows, ThreadPool& pool) const;
  void BlockBF16(const Input& x, int64_t first_row, int64_t rows,
                 const PanelRange& range, float* out) const;
  void Block(const Input& x, int64_t first_row, int64_t rows,
             int64_t first_panel, int64_t last_panel, float* out) const;
  void AddBlock(const Input& x, int64_t first_row, int64_t rows,
                int64_t first_panel, int64_t last_panel, float* out) const;

  int64_t n_;
  int64_t k_;
  const PairKernel* kernel_;
  int64_t width_;  // columns of a panel
  int64_t panels_;
  int64_t depth_;  // k_ and the zeros behind it
  Blocking blocking_;
  std::vector<float> bias_;
  // (panels, k, width) or, in pairs, (panels, depth / 2, width, 2); only one of
  // the two is used.
  AlignedArray<float> f32_;
  AlignedArray<uint16_t> bf16_;
};

absl::Status PackedMatrix::Pack(const RowReader& rows, ThreadPool& pool) try {
  const int64_t total = panels_ * width_ * depth_;
  if (kernel_ == nullptr) {
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
    const int64_t base = p * width_ * depth_;
    if (kernel_ == nullptr) {
      PackPanel(source.data(), k_, f32_.get() + base);
    } else {
      PackPairPanel(source.data(), k_, width_, depth_ / 2, bf16_.get() + base);
    }
  });
  return absl::OkStatus();
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError("no memory for packed weights");
}

PackedMatrix::Input PackedMatrix::Prepare(const float* x, int rows,
                                          ThreadPool& pool) const {
  const int64_t bytes = kernel_ == nullptr
                            ? static_cast<int64_t>(sizeof(float))
                            : static_cast<int64_t>(kernel_->a_bytes);
  // Rows that lie a multiple of 4 KiB apart, as those of most models do,
  // compete for the same few lines of the cache.
  constexpr int64_t kLine = 64;
  const bool collide = depth_ * bytes % 2048 == 0 && rows > 1;
  if (kernel_ == nullptr && (!collide || rows <= kFewRows)) {
    return {reinterpret_cast<const uint8_t*>(x), k_, bytes};
  }
  const int64_t stride = depth_ + (collide ? kLine / bytes : 0);
  thread_local AlignedArray<uint8_t> memory;
  thread_local int64_t size = 0;
  const int64_t needed = rows * stride * bytes;
  if (needed > size) {
    memory = AllocateAligned<uint8_t>(needed);
    size = needed;
  }
  uint8_t* to = memory.get();
  constexpr int64_t kChunk = 16;
  pool.For((rows + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min<int64_t>(rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) {
      uint8_t* out = to + row * stride * bytes;
      if (kernel_ == nullptr) {
        std::memcpy(out, x + row * k_, k_ * bytes);
        continue;
      }
      kernel_->round(x + row * k_, k_, out);
      const int64_t written = RoundUp(k_, 2);
      std::memset(out + written * bytes, 0, (depth_ - written) * bytes);
    }
  });
  return {to, stride, bytes};
}

// The panels of `range`, in bf16.
void PackedMatrix::BlockBF16(const Input& x, int64_t first_row, int64_t rows,
                             const PanelRange& range, float* out) const {
  const size_t width = kernel_->width;
  PairProduct p;
  p.a = x.At(first_row, static_cast<int64_t>(range.k));
  p.a_stride = x.stride;
  p.rows = rows;
  p.b = bf16_.get() + (range.first * range.k_total + range.k) * width;
  p.b_stride = 2 * width;
  p.panel_stride = range.k_total * width;
  p.panels = std::min(range.last, range.n / width) - range.first;
  p.pairs = range.depth / 2;
  p.add = range.k > 0;
  p.c = out + range.first * width;
  p.c_stride = range.n;
  kernel_->multiply(p);
  const size_t left = range.n % width;
  if (left == 0 || range.last * width <= range.n) return;
  // The last panel has fewer columns.
  thread_local const AlignedArray<float> edge =
      AllocateAligned<float>(kBlockingAvx512.rows * kMaxPanelWidth);
  float* to = p.c + p.panels * width;
  for (int64_t r = 0; p.add && r < rows; ++r) {
    std::memcpy(edge.get() + r * width, to + r * n_, left * sizeof(float));
  }
  p.b += p.panels * p.panel_stride;
  p.panels = 1;
  p.c = edge.get();
  p.c_stride = width;
  kernel_->multiply(p);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * n_, edge.get() + r * width, left * sizeof(float));
  }
}

void PackedMatrix::Block(const Input& x, int64_t first_row, int64_t rows,
                         int64_t first_panel, int64_t last_panel,
                         float* out) const {
  // With few rows each panel is read once, from end to end.
  const int64_t step = rows <= kFewRows ? depth_ : blocking_.k;
  for (int64_t k = 0; k < depth_; k += step) {
    const PanelRange range{static_cast<size_t>(first_panel),
                           static_cast<size_t>(last_panel),
                           static_cast<size_t>(n_),
                           static_cast<size_t>(k),
                           static_cast<size_t>(std::min(step, depth_ - k)),
                           static_cast<size_t>(depth_)};
    if (kernel_ != nullptr) {
      BlockBF16(x, first_row, rows, range, out);
    } else {
      MultiplyBlock(reinterpret_cast<const float*>(x.At(first_row, k)),
                    x.stride, rows, f32_.get(), range, out);
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
void PackedMatrix::AddBlock(const Input& x, int64_t first_row, int64_t rows,
                            int64_t first_panel, int64_t last_panel,
                            float* out) const {
  thread_local std::vector<float> sums;
  sums.resize(std::max<size_t>(sums.size(), rows * n_));
  Block(x, first_row, rows, first_panel, last_panel, sums.data());
  const int64_t end = std::min(last_panel * width_, n_);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = sums.data() + r * n_;
    float* to = out + r * n_;
    for (int64_t j = first_panel * width_; j < end; ++j) to[j] += from[j];
  }
}

void PackedMatrix::Multiply(const float* x, absl::Span<const Product> products,
                            int rows, ThreadPool& pool) const {
  const Input input = Prepare(x, rows, pool);
  const auto matrix = [](const Product& product) -> const PackedMatrix& {
    return static_cast<const PackedMatrix&>(product.w);
  };
  int64_t panels = 0;
  for (const Product& product : products) panels += matrix(product).panels_;
  const int64_t row_blocks = (rows + blocking_.rows - 1) / blocking_.rows;
  // There are enough pieces that no thread waits long for the last one.
  const int64_t pieces = std::max<int64_t>(1, 16 * pool.size() / row_blocks);
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
    (w.*run)(input, row, std::min(blocking_.rows, rows - row), piece.first,
             piece.last, piece.product->out + row * w.n_);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> PackOwn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool,
    const PairKernel& pairs) {
  auto matrix = std::make_unique<PackedMatrix>(
      out_features, in_features, type == ComputeType::kF32 ? nullptr : &pairs,
      bias);
  QK_RETURN_IF_ERROR(matrix->Pack(rows, pool));
  return matrix;
}

bool BeatsOneDnn(const PairKernel& pairs, ThreadPool& pool) {
  constexpr int kRows = 256, kSize = 768, kRounds = 5;
  // What ours must gain: a chance winner would change from start to start.
  constexpr double kGain = 1.2;
  const std::vector<float> x(size_t{kRows} * kSize, 1.0f);
  std::vector<float> out(x.size());
  const RowReader ones = [](int64_t begin, int64_t end, float* to) {
    std::fill_n(to, (end - begin) * kSize, 1.0f);
  };
  auto own =
      PackOwn(kSize, kSize, ComputeType::kBF16, ones, nullptr, pool, pairs);
  auto library =
      PackOneDnn(kSize, kSize, ComputeType::kBF16, ones, nullptr, pool);
  if (!own.ok() || !library.ok()) return own.ok();
  double best[2] = {1e9, 1e9};
  for (int round = 0; round < kRounds; ++round) {
    for (int i : {0, 1}) {
      const Matrix& matrix = i == 0 ? **own : **library;
      const auto start = std::chrono::steady_clock::now();
      static_cast<const CpuMatrix&>(matrix).Multiply(
          x.data(), {{matrix, out.data()}}, kRows, pool);
      best[i] = std::min(best[i], std::chrono::duration<double>(
                                      std::chrono::steady_clock::now() - start)
                                      .count());
    }
  }
  return best[0] * kGain < best[1];
}

std::string PairKernelName(const PairKernel& kernel) {
  return absl::StrCat("own-", &kernel == &FmaPairKernel()
                                  ? HighwayTarget()
                                  : std::string(kernel.name));
}

}  // namespace qk::cpu
