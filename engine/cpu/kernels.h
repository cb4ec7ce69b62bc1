// The CPU kernels behind CpuBackend, one file each. Arguments as in backend.h.
#ifndef QKSCOPE_ENGINE_CPU_KERNELS_H_
#define QKSCOPE_ENGINE_CPU_KERNELS_H_

#include <cstdint>

#include "engine/backend/backend.h"
#include "engine/cpu/thread_pool.h"

namespace qk::cpu {

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
                      const AttentionRows& sequence, absl::Span<const int> rows,
                      absl::Span<const int> heads, int keys, ComputeType type,
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
                  int32_t* ids, float* weights);
void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                float* out);
void AddScaledRows(const float* x, absl::Span<const int> rows,
                   absl::Span<const float> factors, int dim, float* out);

// moments.cc
void AddMoments(const HeadRows& x, absl::Span<const int> rows,
                const Moments& moments, ThreadPool& pool);
void FinishNorms(const double* squares, absl::Span<const int> heads,
                 int head_dim, float* out);
void TokenNorms(const HeadRows& x, absl::Span<const int> rows,
                absl::Span<const int> heads, float* out);

// select.cc
void SelectDims(const Selection& selection, const Moments& moments,
                int64_t count, int head_dim, const Choice& choice);
void DisruptPerToken(const Selection& selection, absl::Span<const int> rows,
                     const HeadRows& x, const Choice& choice, ThreadPool& pool);

// copy.cc
void Embed(const void* table, ComputeType type,
           absl::Span<const int32_t> tokens, int hidden, float* out);
void ReplaceDims(const DisruptionRule& rule, const Choice& choice,
                 absl::Span<const int> rows, const HeadRows& x);
void ExpandHeads(const HeadRows& x, int to_heads, float* out);
void CopyOut(const HeadRows& x, absl::Span<const int> rows,
             absl::Span<const int> heads, RawDtype dtype, void* out);

// logits.cc
void ReduceLogits(const float* logits, int vocab, absl::Span<LogitsRow> rows,
                  ThreadPool& pool);
void TopLogits(const float* logits, int vocab, int n, double log_sum_exp,
               int32_t* ids, float* logprobs);
void KlDivergence(const float* base, const float* arm, int vocab,
                  absl::Span<const LogitsRow> base_rows,
                  absl::Span<const LogitsRow> arm_rows, float* kl,
                  ThreadPool& pool);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_KERNELS_H_
