#include "engine/cuda/cublaslt_probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/half.h"
#include "engine/cuda/matmul.h"

namespace qk::cuda {
namespace {

// x repeats these rows: row r is row r % kDistinct. As a tile's height is no
// multiple of it, each of them comes to lie everywhere in a tile.
constexpr int kDistinct = 5;
constexpr int kMostRows = kCublasLtRows[0];
static_assert(kMostRows == *std::max_element(std::begin(kCublasLtRows),
                                             std::end(kCublasLtRows)));
constexpr int kMostStart = 37;
constexpr int kStarts[] = {0, kMostStart};  // the first row of x in a product
constexpr int64_t kChunkBytes = int64_t{16} << 20;  // copied at a time

// In [-1, 1).
float Noise(uint32_t i) {
  uint32_t h = i * 2654435761u ^ 0x9e3779b9u;
  h ^= h >> 15;
  h *= 2246822519u;
  h ^= h >> 13;
  h *= 3266489917u;
  h ^= h >> 16;
  return static_cast<float>(static_cast<int32_t>(h >> 8) - (1 << 23)) /
         static_cast<float>(1 << 23);
}

std::string RowsText(int rows) {
  return absl::StrCat(rows, rows == 1 ? " row" : " rows");
}

class Probe {
 public:
  Probe(Runtime& runtime, CublasLt& library, const void* w, int out_features,
        int in, int64_t workspace_bytes, Stream stream)
      : runtime_(runtime),
        library_(library),
        w_(static_cast<const uint16_t*>(w)),
        out_features_(out_features),
        in_(in),
        workspace_bytes_(workspace_bytes),
        stream_(stream) {}
  ~Probe() { GiveBack().IgnoreError(); }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  absl::StatusOr<CublasLtVerdict> Run();

 private:
  absl::StatusOr<CublasLtVerdict> TryAll(
      const std::vector<CublasLtPlan>& candidates);
  absl::Status MakeRows();
  absl::Status MakeExpected();  // want_ and bound_
  absl::Status AddWeights(std::vector<double>& sums);
  // Why the candidate is refused, or "".
  absl::StatusOr<std::string> Try(const CublasLtPlan& plan);
  absl::StatusOr<std::string> TryRows(const CublasLtPlan& plan, int rows,
                                      int start);
  // Compares rows of out_ with `scale` x bytes_.
  absl::StatusOr<std::string> CompareBytes(int rows, int start, float scale);
  std::string CompareValues() const;

  template <typename T>
  absl::Status Take(T*& data, int64_t count) {
    QK_ASSIGN_OR_RETURN(void* memory,
                        runtime_.Allocate(count * sizeof(T), stream_));
    taken_.push_back(memory);
    data = static_cast<T*>(memory);
    return absl::OkStatus();
  }
  // Copies to the host, and waits.
  template <typename T>
  absl::Status Fetch(std::vector<T>& to, const T* from, int64_t count) {
    to.resize(count);
    QK_RETURN_IF_ERROR(
        runtime_.CopyToHost(to.data(), from, count * sizeof(T), stream_));
    return runtime_.WaitFor(stream_);
  }
  // Waits, as host memory goes, too. The first error of all.
  absl::Status GiveBack();

  Runtime& runtime_;
  CublasLt& library_;
  const uint16_t* const w_;  // (out_features, in), on the device
  const int out_features_, in_;
  const int64_t workspace_bytes_;
  const Stream stream_;

  std::vector<void*> taken_;  // device memory
  uint16_t* x_ = nullptr;     // (kMostStart + kMostRows, in)
  float* out_ = nullptr;      // (kMostRows, out_features), and 4 more
  uint8_t* workspace_ = nullptr;

  std::vector<uint16_t> rows_;  // x_, on the host
  std::vector<float> want_;     // (kDistinct, out_features), by MatMul
  std::vector<double> bound_;   // (kDistinct, out_features)
  std::vector<float> bytes_;    // (kDistinct, out_features), at kMostRows
  std::vector<float> chunk_;
};

absl::Status Probe::GiveBack() {
  if (taken_.empty()) return absl::OkStatus();
  absl::Status status = runtime_.WaitFor(stream_);
  for (void* memory : std::exchange(taken_, {})) {
    status.Update(runtime_.Free(memory, stream_));
  }
  return status;
}

absl::Status Probe::MakeRows() {
  const int64_t rows = kMostStart + kMostRows;
  rows_.resize(rows * in_);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < in_; ++k) {
      rows_[r * in_ + k] =
          RoundToBF16(Noise(static_cast<uint32_t>(r % kDistinct * in_ + k)));
    }
  }
  QK_RETURN_IF_ERROR(Take(x_, rows * in_));
  QK_RETURN_IF_ERROR(Take(out_, int64_t{kMostRows} * out_features_ + 4));
  if (workspace_bytes_ > 0) {
    QK_RETURN_IF_ERROR(Take(workspace_, workspace_bytes_));
  }
  return runtime_.CopyToDevice(x_, rows_.data(), rows * in_ * sizeof(uint16_t),
                               stream_);
}

// sums (kDistinct, out_features) = sum |x| |w|.
absl::Status Probe::AddWeights(std::vector<double>& sums) {
  sums.assign(int64_t{kDistinct} * out_features_, 0.0);
  const int64_t step = std::max<int64_t>(1, kChunkBytes / (2 * in_));
  std::vector<uint16_t> w;
  for (int64_t first = 0; first < out_features_; first += step) {
    const int64_t count = std::min<int64_t>(step, out_features_ - first);
    QK_RETURN_IF_ERROR(Fetch(w, w_ + first * in_, count * in_));
    for (int64_t o = 0; o < count; ++o) {
      for (int64_t d = 0; d < kDistinct; ++d) {
        double sum = 0;
        for (int64_t k = 0; k < in_; ++k) {
          sum += std::abs(double{FromBF16(w[o * in_ + k])} *
                          FromBF16(rows_[d * in_ + k]));
        }
        sums[d * out_features_ + first + o] = sum;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Probe::MakeExpected() {
  MatMulShape shape;
  shape.rows = kDistinct;
  shape.in = in_;
  shape.products = 1;
  shape.list[0] = {w_, nullptr, out_, out_features_};
  const MatMulPlan plan = PlanMatMul(shape, runtime_.facts().multiprocessors);
  float* scratch = nullptr;
  const int64_t floats = MatMulScratch(shape, plan);
  if (floats > 0) QK_RETURN_IF_ERROR(Take(scratch, floats));
  MatMul(x_, ComputeType::kBF16, shape, plan, scratch, stream_);
  QK_RETURN_IF_ERROR(runtime_.LaunchStatus());
  QK_RETURN_IF_ERROR(Fetch(want_, out_, int64_t{kDistinct} * out_features_));
  QK_RETURN_IF_ERROR(AddWeights(bound_));
  for (double& bound : bound_) bound *= std::sqrt(in_) * std::ldexp(1.0, -22);
  return absl::OkStatus();
}

absl::StatusOr<std::string> Probe::CompareBytes(int rows, int start,
                                                float scale) {
  std::vector<float> want = bytes_;
  for (float& value : want) value *= scale;
  const float* from = out_ + (start == 0 ? 0 : 4);
  const int64_t row_bytes = int64_t{4} * out_features_;
  const int64_t step = std::max<int64_t>(1, kChunkBytes / row_bytes);
  int64_t differ = 0, first_row = -1;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min<int64_t>(step, rows - first);
    QK_RETURN_IF_ERROR(
        Fetch(chunk_, from + first * out_features_, count * out_features_));
    for (int64_t r = 0; r < count; ++r) {
      const void* a = &chunk_[r * out_features_];
      const void* b = &want[(start + first + r) % kDistinct * out_features_];
      if (std::memcmp(a, b, row_bytes) == 0) continue;
      if (first_row < 0) first_row = first + r;
      for (int64_t i = 0; i < row_bytes; ++i) {
        differ +=
            static_cast<const char*>(a)[i] != static_cast<const char*>(b)[i];
      }
    }
  }
  if (differ == 0) return "";
  return absl::StrCat("at ", RowsText(rows),
                      scale == 1.0f ? "" : ", added twice", ", ", differ,
                      " of ", rows * row_bytes, " bytes differ from those at ",
                      kMostRows, " rows, first in row ", first_row);
}

std::string Probe::CompareValues() const {
  for (size_t i = 0; i < want_.size(); ++i) {
    const double error = std::abs(double{bytes_[i]} - want_[i]);
    if (error <= bound_[i]) continue;
    return absl::StrCat("at ", kMostRows, " rows, value ", i % out_features_,
                        " of row ", i / out_features_, " is ", bytes_[i],
                        ", and MatMul's is ", want_[i], "; they may be ",
                        bound_[i], " apart");
  }
  return "";
}

absl::StatusOr<std::string> Probe::TryRows(const CublasLtPlan& plan, int rows,
                                           int start) {
  const uint16_t* x = x_ + int64_t{start} * in_;
  float* out = out_ + (start == 0 ? 0 : 4);
  for (bool add : {false, true}) {
    const absl::Status status = library_.Multiply(
        plan, x, rows, w_, add, out, workspace_, workspace_bytes_, stream_);
    if (absl::IsUnimplemented(status)) {
      return absl::StrCat("at ", RowsText(rows), ", ", status.message());
    }
    QK_RETURN_IF_ERROR(status);
    if (bytes_.empty()) {
      QK_RETURN_IF_ERROR(
          Fetch(bytes_, out, int64_t{kDistinct} * out_features_));
      std::string reason = CompareValues();
      if (!reason.empty()) return reason;
    }
    QK_ASSIGN_OR_RETURN(std::string reason,
                        CompareBytes(rows, start, add ? 2.0f : 1.0f));
    if (!reason.empty()) return reason;
  }
  return "";
}

absl::StatusOr<std::string> Probe::Try(const CublasLtPlan& plan) {
  bytes_.clear();
  for (int rows : kCublasLtRows) {
    for (int start : kStarts) {
      QK_ASSIGN_OR_RETURN(std::string reason, TryRows(plan, rows, start));
      if (!reason.empty()) return reason;
    }
  }
  return "";
}

absl::StatusOr<CublasLtVerdict> Probe::TryAll(
    const std::vector<CublasLtPlan>& candidates) {
  QK_RETURN_IF_ERROR(MakeRows());
  QK_RETURN_IF_ERROR(MakeExpected());
  CublasLtVerdict verdict;
  for (const CublasLtPlan& plan : candidates) {
    QK_ASSIGN_OR_RETURN(const std::string reason, Try(plan));
    if (reason.empty()) {
      verdict.plan = plan;
      break;
    }
    verdict.refused.push_back(absl::StrCat(plan.name, ": ", reason));
  }
  return verdict;
}

absl::StatusOr<CublasLtVerdict> Probe::Run() {
  QK_RETURN_IF_ERROR(runtime_.Use());
  QK_ASSIGN_OR_RETURN(
      const std::vector<CublasLtPlan> candidates,
      library_.Candidates(out_features_, in_, workspace_bytes_));
  CublasLtVerdict verdict;
  if (candidates.empty()) {
    verdict.refused.push_back(absl::StrCat(
        "cuBLASLt ", library_.version(), " has no algorithm for a weight of ",
        out_features_, " x ", in_, " that does not split K"));
    return verdict;
  }
  QK_ASSIGN_OR_RETURN(verdict, TryAll(candidates));
  QK_RETURN_IF_ERROR(GiveBack());
  return verdict;
}

}  // namespace

absl::StatusOr<CublasLtVerdict> ProbeCublasLt(Runtime& runtime,
                                              CublasLt& library, const void* w,
                                              int out_features, int in,
                                              int64_t workspace_bytes,
                                              Stream stream) {
  return Probe(runtime, library, w, out_features, in, workspace_bytes, stream)
      .Run();
}

}  // namespace qk::cuda
