// The tests' backend with one injected failure: of an allocation, of an op, or
// of the whole device.
#ifndef QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_
#define QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "engine/backend/backend.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

// The state that a test shares with its backend, which the server owns.
struct Faults {
  std::atomic<int64_t> allocations{0};  // so far
  std::atomic<int64_t> ops{0};
  std::atomic<int64_t> fail_allocation{0};  // the n-th; 0: none
  std::atomic<int64_t> fail_op{0};
  std::atomic<bool> lost_to_ops{false};  // Synchronize says so
  std::atomic<bool> lost_to_memory{false};

  void Reset() { allocations = ops = fail_allocation = fail_op = 0; }
};

class FaultyBackend : public Backend {
 public:
  explicit FaultyBackend(std::shared_ptr<Faults> faults)
      : faults_(std::move(faults)), inner_(MakeTestBackend(1)) {}

  BackendInfo info() const override { return inner_->info(); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    if (faults_->lost_to_memory) return Lost("injected: lost");
    if (++faults_->allocations == faults_->fail_allocation) {
      return absl::ResourceExhaustedError("injected: no memory");
    }
    return inner_->Allocate(bytes);
  }
  void Free(void* data, int64_t bytes) override { inner_->Free(data, bytes); }
  int64_t MarkDownloads() override { return inner_->MarkDownloads(); }
  bool DownloadsArrived(int64_t mark) override {
    return inner_->DownloadsArrived(mark);
  }
  absl::Status Synchronize() override {
    if (faults_->lost_to_ops) return Lost("injected: lost");
    return std::exchange(status_, absl::OkStatus());
  }
  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const RowReader& rows, const float* bias) override {
    return inner_->PackMatrix(out_features, in_features, type, rows, bias);
  }

  void Upload(void* device, const void* host, int64_t bytes) override {
    if (Run()) inner_->Upload(device, host, bytes);
  }
  void Download(void* host, const void* device, int64_t bytes) override {
    if (Run()) inner_->Download(host, device, bytes);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    if (Run()) inner_->CopyOnDevice(to, from, bytes);
  }
  void Zero(void* device, int64_t bytes) override {
    if (Run()) inner_->Zero(device, bytes);
  }
  void Embed(const void* table, ComputeType type,
             absl::Span<const int32_t> tokens, int hidden,
             float* out) override {
    if (Run()) inner_->Embed(table, type, tokens, hidden, out);
  }
  void RmsNorm(const float* x, const float* weight, float eps, int rows,
               int dim, float* out) override {
    if (Run()) inner_->RmsNorm(x, weight, eps, rows, dim, out);
  }
  void LayerNorm(const float* x, const float* weight, const float* bias,
                 float eps, int rows, int dim, float* out) override {
    if (Run()) inner_->LayerNorm(x, weight, bias, eps, rows, dim, out);
  }
  void MatMul(const float* x, const Matrix& w, int rows, float* out) override {
    if (Run()) inner_->MatMul(x, w, rows, out);
  }
  void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
            const float* table) override {
    if (Run()) inner_->Rope(x, rows, heads, head_dim, rotary_dims, table);
  }
  void AppendKv(const HeadRows& k, const HeadRows& v, ComputeType type,
                const KvPage* pages) override {
    if (Run()) inner_->AppendKv(k, v, type, pages);
  }
  void CopyKvPage(const KvPage& from, const KvPage& to, int positions,
                  int head_dim, ComputeType type) override {
    if (Run()) inner_->CopyKvPage(from, to, positions, head_dim, type);
  }
  void Attention(const float* q, const AttentionConfig& config,
                 absl::Span<const AttentionRows> sequences, ComputeType type,
                 float* out) override {
    if (Run()) inner_->Attention(q, config, sequences, type, out);
  }
  void AttentionPattern(const float* q, const AttentionConfig& config,
                        const AttentionRows& sequence, const RowSet& rows,
                        const HeadSet& heads, int keys, ComputeType type,
                        float* out) override {
    if (Run())
      inner_->AttentionPattern(q, config, sequence, rows, heads, keys, type,
                               out);
  }
  void Activate(float* x, const float* times, int64_t n,
                Activation activation) override {
    if (Run()) inner_->Activate(x, times, n, activation);
  }
  void Softcap(float* x, int64_t n, float cap) override {
    if (Run()) inner_->Softcap(x, n, cap);
  }
  void Add(float* x, const float* y, int64_t n) override {
    if (Run()) inner_->Add(x, y, n);
  }
  void Scale(float* x, int64_t n, float factor) override {
    if (Run()) inner_->Scale(x, n, factor);
  }
  void CausalConvSilu(float* x, int rows, int inner, int kernel,
                      const float* weight, const float* bias,
                      float* state) override {
    if (Run())
      inner_->CausalConvSilu(x, rows, inner, kernel, weight, bias, state);
  }
  void SelectiveScan(const ScanInputs& in, int rows, int inner, int state_size,
                     float* state, float* x) override {
    if (Run()) inner_->SelectiveScan(in, rows, inner, state_size, state, x);
  }
  void RouteExperts(const float* logits, int rows, int experts, int chosen,
                    int32_t* ids, float* weights) override {
    if (Run())
      inner_->RouteExperts(logits, rows, experts, chosen, ids, weights);
  }
  void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                  float* out) override {
    if (Run()) inner_->GatherRows(x, rows, dim, out);
  }
  void AddScaledRows(const float* x, absl::Span<const int> rows,
                     absl::Span<const float> factors, int dim,
                     float* out) override {
    if (Run()) inner_->AddScaledRows(x, rows, factors, dim, out);
  }
  void AddMoments(absl::Span<const MomentsJob> jobs) override {
    if (Run()) inner_->AddMoments(jobs);
  }
  void SelectDims(absl::Span<const SelectJob> jobs) override {
    if (Run()) inner_->SelectDims(jobs);
  }
  void ReplaceDims(absl::Span<const ReplaceJob> jobs) override {
    if (Run()) inner_->ReplaceDims(jobs);
  }
  void DisruptPerToken(absl::Span<const TokenRuleJob> jobs) override {
    if (Run()) inner_->DisruptPerToken(jobs);
  }
  void ExpandHeads(absl::Span<const ExpandJob> jobs) override {
    if (Run()) inner_->ExpandHeads(jobs);
  }
  void FinishNorms(absl::Span<const NormsJob> jobs) override {
    if (Run()) inner_->FinishNorms(jobs);
  }
  void TokenNorms(absl::Span<const TokenNormsJob> jobs) override {
    if (Run()) inner_->TokenNorms(jobs);
  }
  void CopyOut(absl::Span<const CopyOutJob> jobs) override {
    if (Run()) inner_->CopyOut(jobs);
  }
  void ReduceLogits(const float* logits, int vocab, int rows,
                    const int32_t* targets, LogitsRow* out) override {
    if (Run()) inner_->ReduceLogits(logits, vocab, rows, targets, out);
  }
  void TopLogits(const float* logits, int vocab, const LogitsRow* reduced,
                 int n, int32_t* ids, float* logprobs) override {
    if (Run()) inner_->TopLogits(logits, vocab, reduced, n, ids, logprobs);
  }
  void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                    const LogitsRow* base_rows, const LogitsRow* arm_rows,
                    float* kl) override {
    if (Run()) {
      inner_->KlDivergence(base, arm, vocab, rows, base_rows, arm_rows, kl);
    }
  }

 private:
  // Returns whether the next op runs; none runs after the first failure.
  bool Run() {
    if (++faults_->ops == faults_->fail_op) {
      status_ = absl::InternalError("injected: bad op");
    }
    return status_.ok();
  }

  const std::shared_ptr<Faults> faults_;
  const std::unique_ptr<Backend> inner_;
  absl::Status status_;  // sticks until Synchronize
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_
