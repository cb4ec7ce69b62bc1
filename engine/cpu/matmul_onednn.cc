#include <omp.h>

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/half.h"
#include "engine/cpu/matmul.h"

// oneDNN's primitives are made for one thread, and ThreadPool's threads run
// them, so the number of threads cannot change a sum. A weight is cut into
// slices of output columns; a thread works on one slice at a time.

namespace qk::cpu {
namespace {

using dnnl::matmul;
using dnnl::memory;

dnnl::engine& Engine() {
  // A primitive runs only on streams of the engine that it was made for.
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::data_type TypeOf(ComputeType type) {
  return type == ComputeType::kF32 ? memory::data_type::f32
                                   : memory::data_type::bf16;
}

matmul::primitive_desc Describe(int rows, int64_t n, int64_t k,
                                ComputeType type, int64_t out_stride,
                                const memory::desc& weights) {
  const memory::desc a({rows, k}, TypeOf(type), memory::format_tag::ab);
  const memory::desc c({rows, n}, memory::data_type::f32,
                       memory::dims{out_stride, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return matmul::primitive_desc(matmul::desc(a, weights, c), attributes,
                                Engine());
}

// A primitive for one of the row-tile sizes that may be mixed.
struct Primitive {
  int rows;
  matmul::primitive_desc desc;
  matmul run;
};

struct Slice {
  int64_t begin = 0;
  int64_t columns = 0;
  memory::desc layout;
  std::vector<uint8_t> weights;
  const std::vector<Primitive>* primitives = nullptr;
};

// float32 has tiles of 1 row for decode. bf16 always takes tiles of 64 rows,
// because smaller ones give other bits on AMX.
std::vector<int> CandidateTiles(ComputeType type) {
  return type == ComputeType::kF32 ? std::vector<int>{128, 16, 1}
                                   : std::vector<int>{64};
}

class OneDnnMatrix final : public CpuMatrix {
 public:
  OneDnnMatrix(int64_t n, int64_t k, ComputeType type, const float* bias)
      : n_(n), k_(k), type_(type) {
    if (bias != nullptr) bias_.assign(bias, bias + n);
  }

  absl::Status Pack(const RowReader& rows, ThreadPool& pool);
  int out_features() const override { return static_cast<int>(n_); }
  int in_features() const override { return static_cast<int>(k_); }
  int64_t bytes() const override {
    int64_t total = static_cast<int64_t>(bias_.size() * sizeof(float));
    for (const Slice& s : slices_) total += s.weights.size();
    return total;
  }
  MatMulChoice choice() const override {
    return {absl::StrCat("onednn-", OneDnnVersion()), ""};
  }
  void Multiply(const float* x, absl::Span<const Product> products, int rows,
                ThreadPool& pool) const override;

 private:
  void MakePrimitives(int64_t columns);
  void DropTilesThatDiffer(const Slice& slice,
                           std::vector<Primitive>& primitives);
  void RunTile(const Primitive& p, const Slice& slice, const void* x,
               float* out) const;
  void RunSlice(const Slice& slice, const float* x, int64_t rows,
                float* out) const;
  void RunProduct(const Slice& slice, const float* x, int64_t rows, bool add,
                  float* out) const;

  int64_t n_;
  int64_t k_;
  ComputeType type_;
  std::vector<float> bias_;
  std::vector<Slice> slices_;
  // The key is the number of columns of a slice.
  std::map<int64_t, std::vector<Primitive>> primitives_;
};

void OneDnnMatrix::MakePrimitives(int64_t columns) {
  std::vector<Primitive>& list = primitives_[columns];
  memory::desc layout({k_, columns}, TypeOf(type_), memory::format_tag::any);
  for (int rows : CandidateTiles(type_)) {
    const auto desc = Describe(rows, columns, k_, type_, n_, layout);
    layout = desc.weights_desc();
    list.push_back({rows, desc, matmul(desc)});
  }
}

void OneDnnMatrix::RunTile(const Primitive& p, const Slice& slice,
                           const void* x, float* out) const {
  // oneDNN asks OpenMP for the number of threads. It must be one here.
  omp_set_num_threads(1);
  thread_local dnnl::stream stream(Engine());
  thread_local std::vector<uint8_t> scratch;
  const size_t needed = p.desc.scratchpad_desc().get_size();
  if (scratch.size() < needed + 64) scratch.resize(needed + 64);
  void* base = scratch.data();
  size_t space = scratch.size();
  std::align(64, needed, base, space);
  dnnl::engine& engine = Engine();
  memory a(p.desc.src_desc(), engine, const_cast<void*>(x));
  memory w(slice.layout, engine, const_cast<uint8_t*>(slice.weights.data()));
  memory c(p.desc.dst_desc(), engine, out);
  memory s(p.desc.scratchpad_desc(), engine, base);
  p.run.execute(stream, {{DNNL_ARG_SRC, a},
                         {DNNL_ARG_WEIGHTS, w},
                         {DNNL_ARG_DST, c},
                         {DNNL_ARG_SCRATCHPAD, s}});
  stream.wait();
}

void OneDnnMatrix::RunSlice(const Slice& slice, const float* x, int64_t rows,
                            float* out) const {
  const std::vector<Primitive>& tiles = *slice.primitives;
  const int64_t element = BytesOf(type_);
  thread_local std::vector<uint16_t> rounded;
  const uint8_t* input = reinterpret_cast<const uint8_t*>(x);
  if (type_ == ComputeType::kBF16) {
    rounded.resize(rows * k_);
    for (int64_t i = 0; i < rows * k_; ++i) rounded[i] = RoundToBF16(x[i]);
    input = reinterpret_cast<const uint8_t*>(rounded.data());
  }
  int64_t row = 0;
  for (const Primitive& p : tiles) {
    for (; rows - row >= p.rows; row += p.rows) {
      RunTile(p, slice, input + row * k_ * element,
              out + row * n_ + slice.begin);
    }
  }
  if (row == rows) return;
  // The tail goes through the smallest tile, padded with zeros.
  const Primitive& p = tiles.back();
  std::vector<uint8_t> a(p.rows * k_ * element, 0);
  std::memcpy(a.data(), input + row * k_ * element,
              (rows - row) * k_ * element);
  std::vector<float> c(p.rows * n_);
  RunTile(p, slice, a.data(), c.data());
  for (int64_t r = 0; row + r < rows; ++r) {
    std::copy_n(c.data() + r * n_, slice.columns,
                out + (row + r) * n_ + slice.begin);
  }
}

// Keeps only the tile sizes that give the same bytes as the last (smallest) one
// on random data.
void OneDnnMatrix::DropTilesThatDiffer(const Slice& slice,
                                       std::vector<Primitive>& primitives) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const int rows = primitives.front().rows;
  std::vector<float> x(rows * k_);
  for (float& v : x) v = uniform(random);
  std::vector<std::vector<float>> results;
  for (const Primitive& p : primitives) {
    std::vector<Primitive> only = {p};
    Slice probe;
    probe.columns = slice.columns;
    probe.layout = slice.layout;
    probe.weights = slice.weights;
    probe.primitives = &only;
    results.emplace_back(rows * n_, 0.0f);
    RunSlice(probe, x.data(), rows, results.back().data());
  }
  for (size_t i = primitives.size() - 1; i-- > 0;) {
    if (std::memcmp(results[i].data(), results.back().data(),
                    results[i].size() * sizeof(float)) != 0) {
      primitives.erase(primitives.begin() + i);
    }
  }
}

absl::Status OneDnnMatrix::Pack(const RowReader& rows, ThreadPool& pool) try {
  omp_set_num_threads(1);
  const int64_t quarter = (n_ + 3) / 4;
  const int64_t width = std::clamp<int64_t>((quarter + 63) / 64 * 64, 64, 1024);
  for (int64_t begin = 0; begin < n_; begin += width) {
    Slice slice;
    slice.begin = begin;
    slice.columns = std::min(width, n_ - begin);
    if (primitives_.count(slice.columns) == 0) MakePrimitives(slice.columns);
    slice.primitives = &primitives_[slice.columns];
    slice.layout = slice.primitives->front().desc.weights_desc();
    slices_.push_back(std::move(slice));
  }
  pool.For(static_cast<int64_t>(slices_.size()), [&](int64_t i, int) {
    omp_set_num_threads(1);
    Slice& slice = slices_[i];
    std::vector<float> source(slice.columns * k_);
    rows(slice.begin, slice.begin + slice.columns, source.data());
    slice.weights.resize(slice.layout.get_size());
    memory from(
        {{k_, slice.columns}, memory::data_type::f32, memory::format_tag::ba},
        Engine(), source.data());
    memory to(slice.layout, Engine(), slice.weights.data());
    dnnl::stream stream(Engine());
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
  });
  for (auto& of_width : primitives_) {
    const auto slice = std::find_if(
        slices_.begin(), slices_.end(),
        [&](const Slice& s) { return s.columns == of_width.first; });
    DropTilesThatDiffer(*slice, of_width.second);
  }
  return absl::OkStatus();
} catch (const dnnl::error& error) {
  return absl::InternalError(absl::StrCat("onednn: ", error.what()));
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError("no memory for packed weights");
}

// out = [out +] the slice's columns, with the bias.
void OneDnnMatrix::RunProduct(const Slice& slice, const float* x, int64_t rows,
                              bool add, float* out) const {
  thread_local std::vector<float> sums;
  if (add) sums.resize(std::max<size_t>(sums.size(), rows * n_));
  float* to = add ? sums.data() : out;
  RunSlice(slice, x, rows, to);
  const int64_t end = slice.begin + slice.columns;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = slice.begin; j < end && !bias_.empty(); ++j) {
      to[r * n_ + j] += bias_[j];
    }
    for (int64_t j = slice.begin; j < end && add; ++j) {
      out[r * n_ + j] += to[r * n_ + j];
    }
  }
}

void OneDnnMatrix::Multiply(const float* x, absl::Span<const Product> products,
                            int rows, ThreadPool& pool) const {
  constexpr int64_t kBlockRows = 512;
  struct Piece {
    const Product* product;
    const Slice* slice;
  };
  std::vector<Piece> pieces;
  for (const Product& product : products) {
    for (const Slice& s : static_cast<const OneDnnMatrix&>(product.w).slices_) {
      pieces.push_back({&product, &s});
    }
  }
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const int64_t count = static_cast<int64_t>(pieces.size());
  pool.For(blocks * count, [&](int64_t task, int) {
    const int64_t row = task / count * kBlockRows;
    const auto& [product, slice] = pieces[task % count];
    const auto& w = static_cast<const OneDnnMatrix&>(product->w);
    w.RunProduct(*slice, x + row * k_, std::min(kBlockRows, rows - row),
                 product->add, product->out + row * w.n_);
  });
}

bool HasIsa(dnnl::cpu_isa isa) {
  const auto wanted = static_cast<unsigned>(isa);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) ==
         wanted;
}

}  // namespace

bool OneDnnSupports(ComputeType type) {
  return HasIsa(type == ComputeType::kF32 ? dnnl::cpu_isa::avx512_core
                                          : dnnl::cpu_isa::avx512_core_bf16);
}

bool OneDnnHasAmx() { return HasIsa(dnnl::cpu_isa::avx512_core_amx); }

absl::StatusOr<std::unique_ptr<Matrix>> PackOneDnn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool) {
  auto matrix =
      std::make_unique<OneDnnMatrix>(out_features, in_features, type, bias);
  QK_RETURN_IF_ERROR(matrix->Pack(rows, pool));
  return matrix;
}

std::string OneDnnVersion() {
  const dnnl::version_t* v = dnnl::version();
  return absl::StrCat(v->major, ".", v->minor, ".", v->patch);
}

}  // namespace qk::cpu
