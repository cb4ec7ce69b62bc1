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
constexpr Blocking kBlockingAvx512 = {192, 1536};
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
    if (bias == nullptr) return;
    bias_ = AllocateAligned<float>(panels_ * width_);
    std::copy_n(bias, n, bias_.get());
    std::fill_n(bias_.get() + n, panels_ * width_ - n, 0.0f);
  }

  absl::Status Pack(const RowReader& rows, ThreadPool& pool);

  int out_features() const override { return static_cast<int>(n_); }
  int in_features() const override { return static_cast<int>(k_); }
  int64_t bytes() const override {
    return panels_ * width_ * depth_ *
               BytesOf(kernel_ == nullptr ? ComputeType::kF32
                                          : ComputeType::kBF16) +
           (bias_ == nullptr
                ? 0
                : panels_ * width_ * static_cast<int64_t>(sizeof(float)));
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
  // out (rows, n) = [out +] some rows of x times panels [first, last).
  void Block(const Input& x, int64_t first_row, int64_t rows, int64_t first,
             int64_t last, bool add, float* out) const;
  // Whole panels, whose first column is that of c.
  void Panels(const Input& x, int64_t first_row, int64_t rows,
              const PanelRange& range, Into into, const float* bias, float* c,
              int64_t c_stride) const;
  // The last panel, if the matrix has fewer columns than its width.
  void Edge(const Input& x, int64_t first_row, int64_t rows,
            const PanelRange& range, Into into, const float* bias, float* c,
            int64_t c_stride) const;

  int64_t n_;
  int64_t k_;
  const PairKernel* kernel_;
  int64_t width_;  // columns of a panel
  int64_t panels_;
  int64_t depth_;  // k_ and the zeros behind it
  Blocking blocking_;
  AlignedArray<float> bias_;  // (panels, width), or null
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

// The number of blocks of nearly equal size, at most `most` rows. If possible,
// threads share them evenly: then a thread has the same rows in the ops before
// and after, and finds them in its caches.
int64_t RowBlocks(int64_t rows, int64_t most, int64_t threads) {
  const int64_t fewest = (rows + most - 1) / most;
  for (int64_t n = fewest; 2 * (rows / n) >= most; ++n) {
    if (n % threads == 0 || threads % n == 0) return n;
  }
  return fewest;
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

void PackedMatrix::Panels(const Input& x, int64_t first_row, int64_t rows,
                          const PanelRange& range, Into into, const float* bias,
                          float* c, int64_t c_stride) const {
  if (range.first == range.last) return;
  const auto first_k = static_cast<int64_t>(range.k);
  const uint8_t* a = x.At(first_row, first_k);
  if (kernel_ == nullptr) {
    MultiplyBlock(reinterpret_cast<const float*>(a), x.stride, rows, f32_.get(),
                  range, into, bias, c, c_stride);
    return;
  }
  const size_t width = kernel_->width;
  PairProduct p;
  p.a = a;
  p.a_stride = x.stride;
  p.rows = rows;
  p.b = bf16_.get() + (range.first * range.k_total + range.k) * width;
  p.b_stride = 2 * width;
  p.panel_stride = range.k_total * width;
  p.panels = range.last - range.first;
  p.pairs = range.depth / 2;
  p.into = into;
  p.bias = bias;
  p.c = c;
  p.c_stride = c_stride;
  kernel_->multiply(p);
}

void PackedMatrix::Edge(const Input& x, int64_t first_row, int64_t rows,
                        const PanelRange& range, Into into, const float* bias,
                        float* c, int64_t c_stride) const {
  const int64_t left = n_ % width_;
  thread_local const AlignedArray<float> edge =
      AllocateAligned<float>(kBlockingAvx512.rows * kMaxPanelWidth);
  for (int64_t r = 0; into != Into::kSet && r < rows; ++r) {
    std::memcpy(edge.get() + r * width_, c + r * c_stride,
                left * sizeof(float));
  }
  Panels(x, first_row, rows, range, into, bias, edge.get(), width_);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(c + r * c_stride, edge.get() + r * width_,
                left * sizeof(float));
  }
}

void PackedMatrix::Block(const Input& x, int64_t first_row, int64_t rows,
                         int64_t first, int64_t last, bool add,
                         float* out) const {
  // With few rows each panel is read once, from end to end.
  const int64_t step = rows <= kFewRows ? depth_ : blocking_.k;
  const int64_t begin = first * width_, end = std::min(last * width_, n_);
  float* c = out + begin;
  int64_t stride = n_;
  // The sum is added whole: its parts go elsewhere first.
  const bool apart = add && step < depth_;
  thread_local std::vector<float> sums;
  if (apart) {
    stride = end - begin;
    sums.resize(std::max<size_t>(sums.size(), rows * stride));
    c = sums.data();
  }
  for (int64_t k = 0; k < depth_; k += step) {
    PanelRange range{static_cast<size_t>(first),
                     static_cast<size_t>(end / width_), static_cast<size_t>(k),
                     static_cast<size_t>(std::min(step, depth_ - k)),
                     static_cast<size_t>(depth_)};
    const bool is_last = k + step >= depth_;
    const Into into = k > 0           ? Into::kContinue
                      : add && !apart ? Into::kAdd
                                      : Into::kSet;
    const float* bias =
        is_last && bias_ != nullptr ? bias_.get() + begin : nullptr;
    Panels(x, first_row, rows, range, into, bias, c, stride);
    if (end % width_ == 0) continue;
    const int64_t edge = range.last * width_ - begin;
    range.first = range.last++;
    Edge(x, first_row, rows, range, into,
         bias == nullptr ? nullptr : bias + edge, c + edge, stride);
  }
  for (int64_t r = 0; apart && r < rows; ++r) {
    const float* from = c + r * stride;
    float* to = out + r * n_ + begin;
    for (int64_t j = 0; j < stride; ++j) to[j] += from[j];
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
  const int64_t row_blocks = RowBlocks(rows, blocking_.rows, pool.size());
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
    const int64_t block = task / count;
    const int64_t row = rows * block / row_blocks;
    const int64_t end = rows * (block + 1) / row_blocks;
    const Piece& piece = all[task % count];
    const PackedMatrix& w = matrix(*piece.product);
    w.Block(input, row, end - row, piece.first, piece.last, piece.product->add,
            piece.product->out + row * w.n_);
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
