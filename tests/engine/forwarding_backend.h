// A backend that passes every op on to another one. Tests derive from it what
// counts, delays or fails ops.
#ifndef QKSCOPE_TESTS_ENGINE_FORWARDING_BACKEND_H_
#define QKSCOPE_TESTS_ENGINE_FORWARDING_BACKEND_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "engine/backend/backend.h"

namespace qk::testing {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner)
      : inner_(std::move(inner)) {}

  BackendInfo info() const override { return inner_->info(); }
  Tiles tiles() const override { return inner_->tiles(); }
  DeviceReading Read() const override { return inner_->Read(); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    return inner_->Allocate(bytes);
  }
  void Free(void* data, int64_t bytes) override { inner_->Free(data, bytes); }
  void Upload(void* device, const void* host, int64_t bytes) override {
    if (Before("Upload")) inner_->Upload(device, host, bytes);
  }
  void CopyOnDevice(absl::Span<const CopyJob> jobs) override {
    if (Before("CopyOnDevice")) inner_->CopyOnDevice(jobs);
  }
  void Zero(void* device, int64_t bytes) override {
    if (Before("Zero")) inner_->Zero(device, bytes);
  }
  Arrival Fetch(const void* device, int64_t bytes) override {
    return Before("Fetch") ? inner_->Fetch(device, bytes) : Arrival();
  }
  std::unique_ptr<Moment> Mark() override { return inner_->Mark(); }
  absl::Status Synchronize() override { return inner_->Synchronize(); }
  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const WeightRows& rows, const float* bias) override {
    return inner_->PackMatrix(out_features, in_features, type, rows, bias);
  }
  absl::StatusOr<DeviceBuffer> PackTable(int64_t n, int64_t width,
                                         ComputeType type,
                                         const WeightRows& rows) override {
    return inner_->PackTable(n, width, type, rows);
  }
  absl::StatusOr<std::unique_ptr<RowTable>> MakeRowTable(
      absl::Span<const SequenceRows> sequences) override {
    return inner_->MakeRowTable(sequences);
  }
  void Embed(const void* table, ComputeType type,
             absl::Span<const int32_t> tokens, int hidden,
             float* out) override {
    if (Before("Embed")) inner_->Embed(table, type, tokens, hidden, out);
  }
  void RmsNorm(const float* x, const float* weight, float eps, int rows,
               int dim, float* out) override {
    if (Before("RmsNorm")) inner_->RmsNorm(x, weight, eps, rows, dim, out);
  }
  void LayerNorm(const float* x, const float* weight, const float* bias,
                 float eps, int rows, int dim, float* out) override {
    if (Before("LayerNorm"))
      inner_->LayerNorm(x, weight, bias, eps, rows, dim, out);
  }
  void MatMul(const float* x, absl::Span<const Product> products,
              int rows) override {
    if (Before("MatMul")) inner_->MatMul(x, products, rows);
  }
  void MakeRopeTable(const RopeConfig& rope, absl::Span<const RopeRows> rows,
                     float* table) override {
    if (Before("MakeRopeTable")) inner_->MakeRopeTable(rope, rows, table);
  }
  void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
            const float* table) override {
    if (Before("Rope"))
      inner_->Rope(x, rows, heads, head_dim, rotary_dims, table);
  }
  void AppendKv(const float* k, const float* v, int head_dim,
                const KvView& kv) override {
    if (Before("AppendKv")) inner_->AppendKv(k, v, head_dim, kv);
  }
  void Attention(const float* q, const AttentionConfig& config,
                 const KvView& kv, Range of, float* out) override {
    if (Before("Attention")) inner_->Attention(q, config, kv, of, out);
  }
  void AttentionPattern(const float* q, const AttentionConfig& config,
                        const KvView& kv,
                        absl::Span<const PatternJob> jobs) override {
    if (Before("AttentionPattern"))
      inner_->AttentionPattern(q, config, kv, jobs);
  }
  void Activate(float* x, const float* times, int64_t n,
                Activation activation) override {
    if (Before("Activate")) inner_->Activate(x, times, n, activation);
  }
  void Softcap(float* x, int64_t n, float cap) override {
    if (Before("Softcap")) inner_->Softcap(x, n, cap);
  }
  void Add(float* x, const float* y, int64_t n) override {
    if (Before("Add")) inner_->Add(x, y, n);
  }
  void Scale(float* x, int64_t n, float factor) override {
    if (Before("Scale")) inner_->Scale(x, n, factor);
  }
  void CausalConvSilu(float* x, const RowTable& rows, int inner, int kernel,
                      const float* weight, const float* bias,
                      int64_t offset) override {
    if (Before("CausalConvSilu"))
      inner_->CausalConvSilu(x, rows, inner, kernel, weight, bias, offset);
  }
  void SelectiveScan(const ScanInputs& in, const RowTable& rows, int inner,
                     int state_size, int64_t offset, float* x) override {
    if (Before("SelectiveScan"))
      inner_->SelectiveScan(in, rows, inner, state_size, offset, x);
  }
  void RouteExperts(const float* logits, int rows, int experts, int chosen,
                    Route* routes) override {
    if (Before("RouteExperts"))
      inner_->RouteExperts(logits, rows, experts, chosen, routes);
  }
  void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                  float* out) override {
    if (Before("GatherRows")) inner_->GatherRows(x, rows, dim, out);
  }
  void MatMulRange(const float* x, absl::Span<const Product> products, int rows,
                   const int32_t* range) override {
    if (Before("MatMulRange")) inner_->MatMulRange(x, products, rows, range);
  }
  void GroupRows(const Route* routes, int rows, int chosen, int experts,
                 const ExpertPlaces& to) override {
    if (Before("GroupRows"))
      inner_->GroupRows(routes, rows, chosen, experts, to);
  }
  void GatherPlaces(const float* x, const int32_t* row, int places, int dim,
                    float* out) override {
    if (Before("GatherPlaces")) inner_->GatherPlaces(x, row, places, dim, out);
  }
  void CombineExperts(const float* x, const Route* routes,
                      const ExpertPlaces& places, int rows, int chosen, int dim,
                      float* out) override {
    if (Before("CombineExperts"))
      inner_->CombineExperts(x, routes, places, rows, chosen, dim, out);
  }
  void AddMoments(absl::Span<const MomentsJob> jobs) override {
    if (Before("AddMoments")) inner_->AddMoments(jobs);
  }
  void SelectDims(absl::Span<const SelectJob> jobs) override {
    if (Before("SelectDims")) inner_->SelectDims(jobs);
  }
  void ReplaceDims(absl::Span<const ReplaceJob> jobs) override {
    if (Before("ReplaceDims")) inner_->ReplaceDims(jobs);
  }
  void DisruptPerToken(absl::Span<const TokenRuleJob> jobs) override {
    if (Before("DisruptPerToken")) inner_->DisruptPerToken(jobs);
  }
  void ExpandHeads(absl::Span<const ExpandJob> jobs) override {
    if (Before("ExpandHeads")) inner_->ExpandHeads(jobs);
  }
  void FinishNorms(absl::Span<const NormsJob> jobs) override {
    if (Before("FinishNorms")) inner_->FinishNorms(jobs);
  }
  void TokenNorms(absl::Span<const TokenNormsJob> jobs) override {
    if (Before("TokenNorms")) inner_->TokenNorms(jobs);
  }
  void CopyOut(absl::Span<const CopyOutJob> jobs) override {
    if (Before("CopyOut")) inner_->CopyOut(jobs);
  }
  void ReduceLogits(const float* logits, int vocab,
                    absl::Span<const int32_t> targets,
                    LogitsRow* out) override {
    if (Before("ReduceLogits"))
      inner_->ReduceLogits(logits, vocab, targets, out);
  }
  void TopLogits(absl::Span<const TopJob> jobs, int vocab) override {
    if (Before("TopLogits")) inner_->TopLogits(jobs, vocab);
  }
  void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                    const LogitsRow* base_rows, const LogitsRow* arm_rows,
                    float* kl) override {
    if (Before("KlDivergence"))
      inner_->KlDivergence(base, arm, vocab, rows, base_rows, arm_rows, kl);
  }

 protected:
  Backend& inner() { return *inner_; }
  // Called before each op with its name. False: the op is left out.
  virtual bool Before(const char* /*op*/) { return true; }

 private:
  const std::unique_ptr<Backend> inner_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORWARDING_BACKEND_H_
