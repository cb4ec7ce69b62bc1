#include "engine/cuda/cuda_backend.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cuda/attention.h"
#include "engine/cuda/describe.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/matrix.h"
#include "engine/cuda/nvml.h"
#include "engine/cuda/products.h"
#include "engine/cuda/rope_lists.h"
#include "engine/cuda/row_table.h"
#include "engine/cuda/work_queue.h"

namespace qk::cuda {
namespace {

// The partial results of attention that is split for a few rows.
constexpr int64_t kMostAttentionScratch = int64_t{32} << 20;  // floats

template <typename List>
int Count(const List& list) {
  return static_cast<int>(list.size());
}

class CudaBackend final : public Backend {
 public:
  // Comes before anything else.
  absl::Status Open(std::shared_ptr<Runtime> runtime, int threads,
                    const CudaLibraries& libraries);

  BackendInfo info() const override;
  Tiles tiles() const override { return GpuTiles(); }
  DeviceReading Read() const override {
    if (nvml_ == nullptr) return {};
    return nvml_->Read().value_or(DeviceReading());
  }

  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    QK_ASSIGN_OR_RETURN(void* data, queue_->Allocate(bytes));
    return DeviceBuffer(data, bytes, this);
  }
  void Free(void* data, int64_t) override { queue_->Free(data); }
  void Upload(void* device, const void* host, int64_t bytes) override {
    queue_->Upload(device, host, bytes);
  }
  void CopyOnDevice(absl::Span<const CopyJob> jobs) override {
    RunJobs(cuda::Copy, jobs);
  }
  void Zero(void* device, int64_t bytes) override {
    queue_->Run(
        [&] { queue_->Note(queue_->runtime().Zero(device, bytes, stream())); });
  }
  Arrival Fetch(const void* device, int64_t bytes) override {
    return queue_->Fetch(device, bytes);
  }
  std::unique_ptr<Moment> Mark() override { return queue_->Mark(); }
  absl::Status Synchronize() override { return queue_->Synchronize(); }

  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const WeightRows& rows, const float* bias) override;
  absl::StatusOr<DeviceBuffer> PackTable(int64_t n, int64_t width,
                                         ComputeType type,
                                         const WeightRows& rows) override;
  absl::StatusOr<std::unique_ptr<RowTable>> MakeRowTable(
      absl::Span<const SequenceRows> sequences) override {
    return CudaRowTable::Make(sequences, this);
  }

  void Embed(const void* table, ComputeType type,
             absl::Span<const int32_t> tokens, int hidden,
             float* out) override {
    RunWith(tokens, [&](const int32_t* ids) {
      cuda::Embed(table, type, ids, Count(tokens), hidden, out, stream());
    });
  }
  void RmsNorm(const float* x, const float* weight, float eps, int rows,
               int dim, float* out) override {
    queue_->Run([&] {
      cuda::RmsNorm(x, weight, eps, rows, dim,
                    queue_->Into(out, int64_t{rows} * dim), stream());
    });
  }
  void LayerNorm(const float* x, const float* weight, const float* bias,
                 float eps, int rows, int dim, float* out) override {
    queue_->Run([&] {
      cuda::LayerNorm(x, weight, bias, eps, rows, dim,
                      queue_->Into(out, int64_t{rows} * dim), stream());
    });
  }
  void MatMul(const float* x, absl::Span<const qk::Product> products,
              int rows) override {
    products_->MatMul(x, products, rows, nullptr);
  }
  void MatMulRange(const float* x, absl::Span<const qk::Product> products,
                   int rows, const int32_t* range) override {
    products_->MatMul(x, products, rows, range);
  }
  void MakeRopeTable(const RopeConfig& rope, absl::Span<const RopeRows> rows,
                     float* table) override;
  void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
            const float* table) override {
    queue_->Run([&] {
      cuda::Rope(x, rows, heads, head_dim, rotary_dims, table, stream());
    });
  }
  void AppendKv(const float* k, const float* v, int head_dim,
                const KvView& kv) override;
  void Attention(const float* q, const AttentionConfig& config,
                 const KvView& kv, Range of, float* out) override;
  void AttentionPattern(const float* q, const AttentionConfig& config,
                        const KvView& kv,
                        absl::Span<const PatternJob> jobs) override;
  void Activate(float* x, const float* times, int64_t n,
                Activation activation) override {
    queue_->Run([&] {
      cuda::Activate(x, times, n, activation, queue_->Into(x, n), stream());
    });
  }
  void Softcap(float* x, int64_t n, float cap) override {
    queue_->Run([&] { cuda::Softcap(x, n, cap, stream()); });
  }
  void Add(float* x, const float* y, int64_t n) override {
    queue_->Run([&] { cuda::Add(x, y, n, stream()); });
  }
  void Scale(float* x, int64_t n, float factor) override {
    queue_->Run([&] { cuda::Scale(x, n, factor, stream()); });
  }

  void CausalConvSilu(float* x, const RowTable& rows, int inner, int kernel,
                      const float* weight, const float* bias,
                      int64_t offset) override {
    queue_->Run([&] {
      const auto jobs = CudaRowTable::Of(rows).StatesAt(offset);
      cuda::CausalConvSilu(x, inner, kernel, weight, bias, jobs.data(),
                           Count(jobs), stream());
    });
  }
  void SelectiveScan(const ScanInputs& in, const RowTable& rows, int inner,
                     int state_size, int64_t offset, float* x) override {
    queue_->Run([&] {
      const auto jobs = CudaRowTable::Of(rows).StatesAt(offset);
      cuda::SelectiveScan(in, inner, state_size, jobs.data(), Count(jobs), x,
                          stream());
    });
  }
  void RouteExperts(const float* logits, int rows, int experts, int chosen,
                    Route* routes) override {
    queue_->Run([&] {
      cuda::RouteExperts(logits, rows, experts, chosen, routes, stream());
    });
  }
  void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                  float* out) override {
    RunWith(rows, [&](const int32_t* list) {
      cuda::GatherRows(x, list, Count(rows), dim,
                       queue_->Into(out, int64_t{Count(rows)} * dim), stream());
    });
  }
  void GroupRows(const Route* routes, int rows, int chosen, int experts,
                 const ExpertPlaces& to) override {
    queue_->Run(
        [&] { cuda::GroupRows(routes, rows, chosen, experts, to, stream()); });
  }
  void GatherPlaces(const float* x, const int32_t* row, int places, int dim,
                    float* out) override {
    queue_->Run([&] {
      cuda::GatherRows(x, row, places, dim,
                       queue_->Into(out, int64_t{places} * dim), stream());
    });
  }
  void CombineExperts(const float* x, const Route* routes,
                      const ExpertPlaces& places, int rows, int chosen, int dim,
                      float* out) override {
    queue_->Run([&] {
      cuda::CombineExperts(x, routes, places, rows, chosen, dim, out, stream());
    });
  }

  void AddMoments(absl::Span<const MomentsJob> jobs) override {
    RunJobsAside(cuda::AddMoments, jobs);
  }
  void SelectDims(absl::Span<const SelectJob> jobs) override {
    RunJobsAside(cuda::SelectDims, jobs);
  }
  void ReplaceDims(absl::Span<const ReplaceJob> jobs) override {
    RunJobs(cuda::ReplaceDims, jobs);
  }
  void DisruptPerToken(absl::Span<const TokenRuleJob> jobs) override {
    RunJobs(cuda::DisruptPerToken, jobs);
  }
  void ExpandHeads(absl::Span<const ExpandJob> jobs) override {
    RunJobs(cuda::ExpandHeads, jobs);
  }
  void FinishNorms(absl::Span<const NormsJob> jobs) override {
    RunJobsAside(cuda::FinishNorms, jobs);
  }
  void TokenNorms(absl::Span<const TokenNormsJob> jobs) override {
    RunJobsAside(cuda::TokenNorms, jobs);
  }
  void CopyOut(absl::Span<const CopyOutJob> jobs) override {
    RunJobsAside(cuda::CopyOut, jobs);
  }

  void ReduceLogits(const float* logits, int vocab,
                    absl::Span<const int32_t> targets,
                    LogitsRow* out) override {
    RunWith(targets, [&](const int32_t* ids) {
      cuda::ReduceLogits(logits, vocab, Count(targets), ids, out, stream());
    });
  }
  void TopLogits(absl::Span<const TopJob> jobs, int vocab) override {
    queue_->Run(
        [&] { cuda::TopLogits(jobs.data(), Count(jobs), vocab, stream()); });
  }
  void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                    const LogitsRow* base_rows, const LogitsRow* arm_rows,
                    float* kl) override {
    queue_->Run([&] {
      cuda::KlDivergence(base, arm, vocab, rows, base_rows, arm_rows, kl,
                         stream());
    });
  }

 private:
  // Runs an op that takes a list, which goes to the device first.
  template <typename Op>
  void RunWith(absl::Span<const int32_t> list, const Op& op) {
    queue_->Run([&] {
      Arguments lists;
      lists.Add(list);
      const uint8_t* data = queue_->Send(lists);
      if (data != nullptr) op(reinterpret_cast<const int32_t*>(data));
    });
  }
  template <typename Job>
  void RunJobs(void (*op)(const Job*, int, Stream),
               absl::Span<const Job> jobs) {
    queue_->Run([&] { op(jobs.data(), Count(jobs), stream()); });
  }
  template <typename Job>
  void RunJobsAside(void (*op)(const Job*, int, Stream),
                    absl::Span<const Job> jobs) {
    queue_->RunAside([&] { op(jobs.data(), Count(jobs), stream()); });
  }
  Stream stream() const { return queue_->stream(); }
  const DeviceFacts& facts() const { return queue_->runtime().facts(); }

  std::unique_ptr<WorkQueue> queue_;
  std::unique_ptr<WeightLoader> loader_;
  std::unique_ptr<Products> products_;
  std::unique_ptr<const Nvml> nvml_;
};

absl::Status CudaBackend::Open(std::shared_ptr<Runtime> runtime, int threads,
                               const CudaLibraries& libraries) {
  QK_ASSIGN_OR_RETURN(
      queue_, WorkQueue::Make(runtime, [this](absl::string_view message) {
        return Lost(message);
      }));
  loader_ = std::make_unique<WeightLoader>(std::move(runtime), threads);
  QK_ASSIGN_OR_RETURN(products_, Products::Make(queue_.get(), libraries));
  // Without it, the GPU says nothing of itself.
  auto nvml = Nvml::Open(facts().uuid, libraries.nvml_file);
  if (nvml.ok()) nvml_ = *std::move(nvml);
  return absl::OkStatus();
}

BackendInfo CudaBackend::info() const {
  return Describe(facts(), Read(), products_->kernel_id(ComputeType::kF32),
                  products_->kernel_id(ComputeType::kBF16));
}

// --- weights and products

absl::StatusOr<DeviceBuffer> CudaBackend::PackTable(int64_t n, int64_t width,
                                                    ComputeType type,
                                                    const WeightRows& rows) {
  QK_ASSIGN_OR_RETURN(DeviceBuffer table, Allocate(n * width * BytesOf(type)));
  // The memory may be used by another stream from here on.
  absl::Status status = queue_->runtime().WaitFor(stream());
  if (status.ok()) {
    status = loader_->Load(rows, n, width, type, table.as<void>());
  }
  if (IsLost(status)) queue_->Note(status);
  QK_RETURN_IF_ERROR(status);
  return table;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaBackend::PackMatrix(
    int64_t out_features, int64_t in_features, ComputeType type,
    const WeightRows& rows, const float* bias) {
  QK_ASSIGN_OR_RETURN(DeviceBuffer w,
                      PackTable(out_features, in_features, type, rows));
  DeviceBuffer device_bias;
  if (bias != nullptr) {
    QK_ASSIGN_OR_RETURN(device_bias, Allocate(4 * out_features));
    Upload(device_bias.as<void>(), bias, 4 * out_features);
  }
  const int out = static_cast<int>(out_features);
  const int in = static_cast<int>(in_features);
  if (type == ComputeType::kBF16) queue_->StartRounding();
  QK_ASSIGN_OR_RETURN(Products::Judgement judged,
                      products_->Choose(w.as<void>(), type, out, in));
  return std::make_unique<CudaMatrix>(
      out, in, type, std::move(w), std::move(device_bias),
      std::move(judged.plan), std::move(judged.choice));
}

// --- the forward pass

void CudaBackend::MakeRopeTable(const RopeConfig& rope,
                                absl::Span<const RopeRows> rows, float* table) {
  queue_->Run([&] {
    const RopeLists lists(rows);
    const uint8_t* data = queue_->Send(lists.arguments());
    if (data == nullptr) return;
    cuda::MakeRopeTable(lists.Table(rope, data), lists.rows(), table, stream());
  });
}

void CudaBackend::AppendKv(const float* k, const float* v, int head_dim,
                           const KvView& kv) {
  queue_->Run([&] {
    const CudaRowTable& rows = CudaRowTable::Of(*kv.rows);
    cuda::AppendKv(k, v, kv.part, kv.type, head_dim, rows.page_rows(),
                   rows.num_page_rows(), rows.pages(), stream());
    const std::vector<FillJob> jobs = rows.FillJobs(kv);
    FillFreshPages(jobs.data(), Count(jobs), kv.part, kv.type, head_dim,
                   stream());
  });
}

void CudaBackend::Attention(const float* q, const AttentionConfig& config,
                            const KvView& kv, Range of, float* out) {
  queue_->RunAside([&] {
    if (config.head_dim > kMostHeadDim) {
      queue_->Note(absl::UnimplementedError(
          absl::StrCat("attention on a GPU takes heads of at most ",
                       kMostHeadDim, " dims, got ", config.head_dim)));
      return;
    }
    const CudaRowTable& rows = CudaRowTable::Of(*kv.rows);
    absl::StatusOr<AttentionTask> task = rows.Plan(
        config, kv, of, 2 * facts().multiprocessors, kMostAttentionScratch);
    if (!queue_->Note(task.status()) || !queue_->Ready()) return;
    task->work.scratch = queue_->Partial(task->scratch_floats);
    if (task->work.scratch == nullptr) return;
    const int64_t width = config.q_size();
    Outputs to = {out};
    if (queue_->rounds()) {
      to = queue_->rounded().Part(out, of.begin * width, of.end * width,
                                  rows.end() * width);
    }
    cuda::Attention(q, task->kv, task->shape, kv.type, task->work, to,
                    stream());
  });
}

void CudaBackend::AttentionPattern(const float* q,
                                   const AttentionConfig& config,
                                   const KvView& kv,
                                   absl::Span<const PatternJob> jobs) {
  queue_->RunAside([&] {
    const CudaRowTable& rows = CudaRowTable::Of(*kv.rows);
    const absl::StatusOr<AttentionTask> task = rows.PlanPattern(config, kv);
    if (!queue_->Note(task.status()) || !queue_->Ready()) return;
    const std::vector<SequencePattern> patterns = rows.PatternsOf(kv, jobs);
    cuda::AttentionPattern(q, task->kv, task->shape, kv.type, patterns.data(),
                           Count(patterns), stream());
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(
    std::shared_ptr<Runtime> runtime, int threads,
    const CudaLibraries& libraries) {
  if (threads <= 0) {
    threads =
        static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  auto backend = std::make_unique<CudaBackend>();
  QK_RETURN_IF_ERROR(backend->Open(std::move(runtime), threads, libraries));
  return backend;
}

}  // namespace qk::cuda
