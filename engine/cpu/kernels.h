// The CPU kernels behind CpuBackend, one file per kind. Arguments are as in
// backend.h.
#ifndef QKSCOPE_ENGINE_CPU_KERNELS_H_
#define QKSCOPE_ENGINE_CPU_KERNELS_H_

#include <cstdint>

#include "engine/backend/backend.h"
#include "engine/cpu/thread_pool.h"

namespace qk::cpu {

// The i-th row of a set.
inline int64_t RowAt(const RowSet& rows, int i) {
  return rows.begin + (rows.list == nullptr ? i : rows.list[i]);
}
inline int HeadAt(const HeadSet& heads, int i) {
  return heads.list == nullptr ? i : heads.list[i];
}

// The values (head_dim) of one head in one row.
inline float* HeadOf(const HeadRows& x, int64_t row, int head) {
  return x.data + (row * x.heads + head) * x.head_dim;
}

// norm.cc
void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             float* out, ThreadPool& pool);
void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, float* out, ThreadPool& pool);

// rope.cc
void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
          const float* table, ThreadPool& pool);

// kv_cache.cc
void AppendKv(const HeadRows& k, const HeadRows& v, ComputeType type,
              const KvPage* pages);
void CopyKvPage(const KvPage& from, const KvPage& to, int positions,
                int head_dim, ComputeType type);

// attention.cc
void Attention(const float* q, const AttentionConfig& config,
               absl::Span<const AttentionRows> sequences, ComputeType type,
               float* out, ThreadPool& pool);
void AttentionPattern(const float* q, const AttentionConfig& config,
                      const AttentionRows& sequence, const RowSet& rows,
                      const HeadSet& heads, int keys, ComputeType type,
                      float* out);

// activation.cc
void Activate(float* x, const float* times, int64_t n, Activation activation,
              ThreadPool& pool);
void Softcap(float* x, int64_t n, float cap, ThreadPool& pool);
void Add(float* x, const float* y, int64_t n, ThreadPool& pool);
void Scale(float* x, int64_t n, float factor, ThreadPool& pool);

// mamba.cc
void CausalConvSilu(float* x, int rows, int inner, int kernel,
                    const float* weight, const float* bias, float* state,
                    ThreadPool& pool);
void SelectiveScan(const ScanInputs& in, int rows, int inner, int state_size,
                   float* state, float* x, ThreadPool& pool);

// experts.cc
void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  Route* routes);
void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                float* out);
void AddScaledRows(const float* x, absl::Span<const int> rows,
                   absl::Span<const float> factors, int dim, float* out);

// moments.cc
void AddMoments(absl::Span<const MomentsJob> jobs, ThreadPool& pool);
void FinishNorms(absl::Span<const NormsJob> jobs);
void TokenNorms(absl::Span<const TokenNormsJob> jobs);

// disrupt.cc
void SelectDims(absl::Span<const SelectJob> jobs);
void ReplaceDims(absl::Span<const ReplaceJob> jobs);
void DisruptPerToken(absl::Span<const TokenRuleJob> jobs, ThreadPool& pool);

// copy.cc
void Embed(const void* table, ComputeType type,
           absl::Span<const int32_t> tokens, int hidden, float* out);
void ExpandHeads(absl::Span<const ExpandJob> jobs);
void CopyOut(absl::Span<const CopyOutJob> jobs);

// logits.cc
void ReduceLogits(const float* logits, int vocab,
                  absl::Span<const int32_t> targets, LogitsRow* out,
                  ThreadPool& pool);
void TopLogits(absl::Span<const TopJob> jobs, int vocab, ThreadPool& pool);
void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                  const LogitsRow* base_rows, const LogitsRow* arm_rows,
                  float* kl, ThreadPool& pool);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_KERNELS_H_
