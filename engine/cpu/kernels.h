// The CPU kernels behind CpuBackend, one file per kind. Arguments are as in
// backend.h.
#ifndef QKSCOPE_ENGINE_CPU_KERNELS_H_
#define QKSCOPE_ENGINE_CPU_KERNELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/thread_pool.h"
#include "engine/cpu/pair_product.h"

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

// Runs task(job, chunk) for each chunk of each job; chunks(job) says how many a
// job has. Small jobs of many sequences so share the threads.
template <typename Job, typename Chunks, typename Task>
void ForChunks(absl::Span<const Job> jobs, ThreadPool& pool,
               const Chunks& chunks, const Task& task) {
  std::vector<int64_t> ends;  // of each job, over all chunks
  int64_t all = 0;
  for (const Job& job : jobs) ends.push_back(all += chunks(job));
  pool.For(all, [&](int64_t i, int) {
    const auto end = std::upper_bound(ends.begin(), ends.end(), i);
    const int64_t job = end - ends.begin();
    task(jobs[job], i - (job == 0 ? 0 : ends[job - 1]));
  });
}

// The same over n items of each job, `most` in a chunk: task(job, begin, end).
template <typename Job, typename Items, typename Task>
void ForItems(absl::Span<const Job> jobs, ThreadPool& pool, int64_t most,
              const Items& items, const Task& task) {
  ForChunks(
      jobs, pool,
      [&](const Job& job) {
        return (static_cast<int64_t>(items(job)) + most - 1) / most;
      },
      [&](const Job& job, int64_t chunk) {
        task(job, chunk * most,
             std::min<int64_t>(items(job), (chunk + 1) * most));
      });
}

// One layer's keys and values at kPageSize positions, in the compute type. k is
// transposed, so that scores of neighbouring keys lie side by side. In bf16 the
// values lie in pairs, as pair_product.h has them.
struct KvPage {
  // (heads, head_dim, kPageSize), or (heads, head_dim / 2, kPageSize, 2), with
  // the last one of an odd head_dim behind them.
  void* k = nullptr;
  // (heads, kPageSize, head_dim), or (heads, kPageSize / 2, head_dim, 2).
  void* v = nullptr;
  int heads = 0;
};
// Where a head's k and v have an element, `i` of head_dim.
template <typename T>
int64_t KeyPlace(int key, int i, int head_dim) {
  if (sizeof(T) == 4 || i == head_dim / 2 * 2) return i * kPageSize + key;
  return (i / 2 * kPageSize + key) * 2 + i % 2;
}
template <typename T>
int64_t ValuePlace(int key, int i, int head_dim) {
  if (sizeof(T) == 4) return key * head_dim + i;
  return (key / 2 * head_dim + i) * 2 + key % 2;
}

class CpuRowTable final : public RowTable {
 public:
  struct Sequence {
    int row_begin = 0;
    int rows = 0;
    int first_position = 0;
    std::vector<uint8_t*> pages;
    float* state = nullptr;

    int first_page() const { return first_position / kPageSize; }
    int end() const { return first_position + rows; }
  };
  explicit CpuRowTable(absl::Span<const SequenceRows> sequences);
  static const std::vector<Sequence>& Of(const RowTable& rows) {
    return static_cast<const CpuRowTable&>(rows).sequences_;
  }

 private:
  std::vector<Sequence> sequences_;
};

// norm.cc
void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             float* out, ThreadPool& pool);
void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, float* out, ThreadPool& pool);

// rope.cc
void MakeRopeTable(const RopeConfig& rope, absl::Span<const RopeRows> rows,
                   float* table, ThreadPool& pool);
void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
          const float* table, ThreadPool& pool);

// kv_cache.cc
// The pages of each sequence that attention reads.
std::vector<std::vector<KvPage>> PagesOf(const KvView& kv);
void AppendKv(const float* k, const float* v, int head_dim, const KvView& kv,
              ThreadPool& pool);

// attention.cc
// pairs: for pages in bf16.
void Attention(const float* q, const AttentionConfig& config, const KvView& kv,
               Range of, const PairKernel& pairs, float* out, ThreadPool& pool);
void AttentionPattern(const float* q, const AttentionConfig& config,
                      const KvView& kv, absl::Span<const PatternJob> jobs,
                      ThreadPool& pool);

// activation.cc
void Activate(float* x, const float* times, int64_t n, Activation activation,
              ThreadPool& pool);
void Softcap(float* x, int64_t n, float cap, ThreadPool& pool);
void Add(float* x, const float* y, int64_t n, ThreadPool& pool);
void Scale(float* x, int64_t n, float factor, ThreadPool& pool);

// mamba.cc
void CausalConvSilu(float* x, const RowTable& rows, int inner, int kernel,
                    const float* weight, const float* bias, int64_t offset,
                    ThreadPool& pool);
void SelectiveScan(const ScanInputs& in, const RowTable& rows, int inner,
                   int state_size, int64_t offset, float* x, ThreadPool& pool);

// experts.cc
void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  Route* routes);
void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                float* out);
void GroupRows(const Route* routes, int rows, int chosen, int experts,
               const ExpertPlaces& to);
void CombineExperts(const float* x, const Route* routes,
                    const ExpertPlaces& places, int rows, int chosen, int dim,
                    float* out, ThreadPool& pool);

// moments.cc
void AddMoments(absl::Span<const MomentsJob> jobs, ThreadPool& pool);
void FinishNorms(absl::Span<const NormsJob> jobs, ThreadPool& pool);
void TokenNorms(absl::Span<const TokenNormsJob> jobs, ThreadPool& pool);

// disrupt.cc
void SelectDims(absl::Span<const SelectJob> jobs, ThreadPool& pool);
void ReplaceDims(absl::Span<const ReplaceJob> jobs, ThreadPool& pool);
void DisruptPerToken(absl::Span<const TokenRuleJob> jobs, ThreadPool& pool);

// copy.cc
// table (n, width), in the compute type, = the rows.
void FillTable(const RowReader& rows, int64_t n, int64_t width,
               ComputeType type, void* table, ThreadPool& pool);
void Embed(const void* table, ComputeType type,
           absl::Span<const int32_t> tokens, int hidden, float* out);
void ExpandHeads(absl::Span<const ExpandJob> jobs, ThreadPool& pool);
void CopyOut(absl::Span<const CopyOutJob> jobs, ThreadPool& pool);
void Copy(absl::Span<const CopyJob> jobs, ThreadPool& pool);

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
