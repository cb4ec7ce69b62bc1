#include "engine/cpu/cpu_backend.h"

#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/thread_pool.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matmul.h"
#include "engine/cpu/panels.h"

namespace qk {
namespace {

constexpr int kAlignment = 64;

std::string ProcessorName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  utsname name;
  return uname(&name) == 0 ? name.machine : "unknown";
}

// A result on a host whose device is the host itself.
class HostSlot final : public Arrival::Slot {
 public:
  HostSlot(const void* from, int64_t bytes)
      : data_(std::make_unique_for_overwrite<uint8_t[]>(bytes)), bytes_(bytes) {
    if (bytes > 0) std::memcpy(data_.get(), from, bytes);
  }
  bool here() const override { return true; }
  absl::Span<const uint8_t> bytes() const override {
    return {data_.get(), static_cast<size_t>(bytes_)};
  }

 private:
  const std::unique_ptr<uint8_t[]> data_;
  const int64_t bytes_;
};

// Ops have ended when they return.
class HostMoment final : public Moment {
 public:
  bool reached() const override { return true; }
  void Wait() const override {}
  double SecondsSince(const Moment& earlier) const override {
    return std::chrono::duration<double>(
               time_ - static_cast<const HostMoment&>(earlier).time_)
        .count();
  }

 private:
  const std::chrono::steady_clock::time_point time_ =
      std::chrono::steady_clock::now();
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options)
      : pool_(options.threads > 0
                  ? options.threads
                  : std::max(1u, std::thread::hardware_concurrency())),
        kernel_(options.matmul),
        pairs_(options.pairs == nullptr ? cpu::FastestPairKernel()
                                        : *options.pairs),
        auto_one_dnn_(kernel_ == MatMulKernel::kAuto && cpu::OneDnnHasAmx() &&
                      !cpu::BeatsOneDnn(pairs_, pool_)) {}

  BackendInfo info() const override;
  Tiles tiles() const override {
    Tiles tiles;
    tiles.scratch_rows = pool_.size();
    return tiles;
  }

  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    const int64_t rounded = (std::max<int64_t>(bytes, 1) + kAlignment - 1) /
                            kAlignment * kAlignment;
    void* data = std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("needs ", bytes, " bytes of memory, not available"));
    }
    return DeviceBuffer(data, bytes, this);
  }
  void Free(void* data, int64_t) override { std::free(data); }
  // Pointers may be null if bytes is 0, which memcpy does not allow.
  void Upload(void* device, const void* host, int64_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  Arrival Fetch(const void* device, int64_t bytes) override {
    return Arrival(std::make_shared<HostSlot>(device, bytes));
  }
  void CopyOnDevice(absl::Span<const CopyJob> jobs) override {
    cpu::Copy(jobs, pool_);
  }
  void Zero(void* device, int64_t bytes) override {
    if (bytes > 0) std::memset(device, 0, bytes);
  }
  std::unique_ptr<Moment> Mark() override {
    return std::make_unique<HostMoment>();
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }

  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const WeightRows& rows, const float* bias) override {
    if (UsesOneDnn(type)) {
      return cpu::PackOneDnn(out_features, in_features, type, rows.floats, bias,
                             pool_);
    }
    return cpu::PackOwn(out_features, in_features, type, rows.floats, bias,
                        pool_, pairs_);
  }
  absl::StatusOr<DeviceBuffer> PackTable(int64_t n, int64_t width,
                                         ComputeType type,
                                         const WeightRows& rows) override {
    QK_ASSIGN_OR_RETURN(DeviceBuffer table,
                        Allocate(n * width * BytesOf(type)));
    cpu::FillTable(rows.floats, n, width, type, table.as<void>(), pool_);
    return table;
  }

  void Embed(const void* table, ComputeType type,
             absl::Span<const int32_t> tokens, int hidden,
             float* out) override {
    cpu::Embed(table, type, tokens, hidden, out);
  }
  void RmsNorm(const float* x, const float* weight, float eps, int rows,
               int dim, float* out) override {
    cpu::RmsNorm(x, weight, eps, rows, dim, out, pool_);
  }
  void LayerNorm(const float* x, const float* weight, const float* bias,
                 float eps, int rows, int dim, float* out) override {
    cpu::LayerNorm(x, weight, bias, eps, rows, dim, out, pool_);
  }
  void MatMul(const float* x, absl::Span<const Product> products,
              int rows) override {
    // Weights of one type are all of one kernel.
    const Matrix& first = products.front().w;
    static_cast<const cpu::CpuMatrix&>(first).Multiply(x, products, rows,
                                                       pool_);
  }
  void MatMulRange(const float* x, absl::Span<const Product> products, int,
                   const int32_t* range) override {
    if (range[0] == range[1]) return;
    std::vector<Product> in_range;
    for (const Product& p : products) {
      in_range.push_back(
          {p.w, p.out + int64_t{range[0]} * p.w.out_features(), p.add});
    }
    const int64_t in = products.front().w.in_features();
    MatMul(x + range[0] * in, in_range, range[1] - range[0]);
  }
  void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
            const float* table) override {
    cpu::Rope(x, rows, heads, head_dim, rotary_dims, table, pool_);
  }
  absl::StatusOr<std::unique_ptr<RowTable>> MakeRowTable(
      absl::Span<const SequenceRows> sequences) override {
    return std::make_unique<cpu::CpuRowTable>(sequences);
  }
  void MakeRopeTable(const RopeConfig& rope, absl::Span<const RopeRows> rows,
                     float* table) override {
    cpu::MakeRopeTable(rope, rows, table, pool_);
  }
  void AppendKv(const float* k, const float* v, int head_dim,
                const KvView& kv) override {
    cpu::AppendKv(k, v, head_dim, kv, pool_);
  }
  void Attention(const float* q, const AttentionConfig& config,
                 const KvView& kv, Range of, float* out) override {
    cpu::Attention(q, config, kv, of, pairs_, out, pool_);
  }
  void AttentionPattern(const float* q, const AttentionConfig& config,
                        const KvView& kv,
                        absl::Span<const PatternJob> jobs) override {
    cpu::AttentionPattern(q, config, kv, jobs, pool_);
  }
  void Activate(float* x, const float* times, int64_t n,
                Activation activation) override {
    cpu::Activate(x, times, n, activation, pool_);
  }
  void Softcap(float* x, int64_t n, float cap) override {
    cpu::Softcap(x, n, cap, pool_);
  }
  void Add(float* x, const float* y, int64_t n) override {
    cpu::Add(x, y, n, pool_);
  }
  void Scale(float* x, int64_t n, float factor) override {
    cpu::Scale(x, n, factor, pool_);
  }

  void CausalConvSilu(float* x, const RowTable& rows, int inner, int kernel,
                      const float* weight, const float* bias,
                      int64_t offset) override {
    cpu::CausalConvSilu(x, rows, inner, kernel, weight, bias, offset, pool_);
  }
  void SelectiveScan(const ScanInputs& in, const RowTable& rows, int inner,
                     int state_size, int64_t offset, float* x) override {
    cpu::SelectiveScan(in, rows, inner, state_size, offset, x, pool_);
  }
  void RouteExperts(const float* logits, int rows, int experts, int chosen,
                    Route* routes) override {
    cpu::RouteExperts(logits, rows, experts, chosen, routes);
  }
  void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                  float* out) override {
    cpu::GatherRows(x, rows, dim, out);
  }
  void GroupRows(const Route* routes, int rows, int chosen, int experts,
                 const ExpertPlaces& to) override {
    cpu::GroupRows(routes, rows, chosen, experts, to);
  }
  void GatherPlaces(const float* x, const int32_t* row, int places, int dim,
                    float* out) override {
    cpu::GatherRows(x, absl::MakeConstSpan(row, places), dim, out);
  }
  void CombineExperts(const float* x, const Route* routes,
                      const ExpertPlaces& places, int rows, int chosen, int dim,
                      float* out) override {
    cpu::CombineExperts(x, routes, places, rows, chosen, dim, out, pool_);
  }

  void AddMoments(absl::Span<const MomentsJob> jobs) override {
    cpu::AddMoments(jobs, pool_);
  }
  void SelectDims(absl::Span<const SelectJob> jobs) override {
    cpu::SelectDims(jobs, pool_);
  }
  void ReplaceDims(absl::Span<const ReplaceJob> jobs) override {
    cpu::ReplaceDims(jobs, pool_);
  }
  void DisruptPerToken(absl::Span<const TokenRuleJob> jobs) override {
    cpu::DisruptPerToken(jobs, pool_);
  }
  void ExpandHeads(absl::Span<const ExpandJob> jobs) override {
    cpu::ExpandHeads(jobs, pool_);
  }
  void FinishNorms(absl::Span<const NormsJob> jobs) override {
    cpu::FinishNorms(jobs, pool_);
  }
  void TokenNorms(absl::Span<const TokenNormsJob> jobs) override {
    cpu::TokenNorms(jobs, pool_);
  }
  void CopyOut(absl::Span<const CopyOutJob> jobs) override {
    cpu::CopyOut(jobs, pool_);
  }

  void ReduceLogits(const float* logits, int vocab,
                    absl::Span<const int32_t> targets,
                    LogitsRow* out) override {
    cpu::ReduceLogits(logits, vocab, targets, out, pool_);
  }
  void TopLogits(absl::Span<const TopJob> jobs, int vocab) override {
    cpu::TopLogits(jobs, vocab, pool_);
  }
  void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                    const LogitsRow* base_rows, const LogitsRow* arm_rows,
                    float* kl) override {
    cpu::KlDivergence(base, arm, vocab, rows, base_rows, arm_rows, kl, pool_);
  }

 private:
  bool UsesOneDnn(ComputeType type) const {
    if (kernel_ == MatMulKernel::kAuto) {
      return auto_one_dnn_ && type == ComputeType::kBF16;
    }
    return kernel_ == MatMulKernel::kOneDnn;
  }

  ThreadPool pool_;
  MatMulKernel kernel_;
  const cpu::PairKernel& pairs_;
  const bool auto_one_dnn_;  // kAuto means oneDNN for bf16
};

BackendInfo CpuBackend::info() const {
  BackendInfo info;
  info.name = "cpu";
  info.device = ProcessorName();
  info.threads = pool_.size();
  const std::string own = absl::StrCat("own-", cpu::HighwayTarget());
  const std::string pairs = cpu::PairKernelName(pairs_);
  const auto matmul = [&](ComputeType type) {
    if (UsesOneDnn(type)) return absl::StrCat("onednn-", cpu::OneDnnVersion());
    return type == ComputeType::kF32 ? own : pairs;
  };
  info.kernel_ids = {
      absl::StrCat("matmul.f32:", matmul(ComputeType::kF32)),
      absl::StrCat("matmul.bf16:", matmul(ComputeType::kBF16)),
      absl::StrCat("attention.f32:", own),
      absl::StrCat("attention.bf16:", pairs),
      absl::StrCat("elementwise:", own),
  };
  info.library_versions = {{"onednn", cpu::OneDnnVersion()}};
  return info;
}

}  // namespace

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace qk
