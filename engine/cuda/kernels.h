// The functions that start kernels: one or a few launches each, on a stream.
// All pointers are to device memory unless a comment says otherwise; tensors
// are float32, row-major and dense, as in engine/backend/backend.h and jobs.h,
// which say what each op does. Arguments, jobs included, are read before a
// function returns. A launch that fails is in TakeLaunchError().
#ifndef QKSCOPE_ENGINE_CUDA_KERNELS_H_
#define QKSCOPE_ENGINE_CUDA_KERNELS_H_

#include <cstdint>

#include "engine/backend/jobs.h"
#include "engine/cuda/outputs.h"
#include "engine/cuda/page_table.h"
#include "engine/cuda/stream.h"
#include "engine/types/compute_type.h"
#include "engine/types/model_config.h"

namespace qk::cuda {

// --- norm.cu

// out (rows, dim) may be x.
void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             Outputs out, Stream stream);
void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, Outputs out, Stream stream);

// --- rope.cu

inline constexpr int kRopeCoordinates = 3;

// The rows' positions and what they rotate with.
struct RopeTable {
  const int32_t* positions = nullptr;  // (rows, kRopeCoordinates)
  const float* frequencies = nullptr;  // (sets, half), radians per token
  const int32_t* frequencies_of_row = nullptr;  // (rows): the set
  const int32_t* places = nullptr;  // (rows): where each row goes in `out`
  int half = 0;                     // pairs of dims
  float factor = 1;                 // of cos and sin
  // Pairs below section_end[i] rotate with coordinate i. No sections: all with
  // the first.
  int num_sections = 0;
  int section_end[kRopeCoordinates] = {};
};
// out (.., 2, half) = cos, sin, at the rows' places.
void MakeRopeTable(const RopeTable& table, int rows, float* out, Stream stream);
void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
          const float* table, Stream stream);

// --- activation.cu

// out (n) may be x.
void Activate(const float* x, const float* times, int64_t n,
              Activation activation, Outputs out, Stream stream);
void Softcap(float* x, int64_t n, float cap, Stream stream);
void Add(float* x, const float* y, int64_t n, Stream stream);
void Scale(float* x, int64_t n, float factor, Stream stream);
// x (rows, dim) += bias (dim), in each row.
void AddBias(float* x, const float* bias, int rows, int dim, Stream stream);
void RoundToBf16(const float* x, int64_t n, uint16_t* out, Stream stream);

// --- copy.cu

// out (rows, hidden) = table (vocab, hidden) at tokens (rows).
void Embed(const void* table, ComputeType type, const int32_t* tokens, int rows,
           int hidden, float* out, Stream stream);
void ExpandHeads(const ExpandJob* jobs, int count, Stream stream);
void CopyOut(const CopyOutJob* jobs, int count, Stream stream);
void Copy(const CopyJob* jobs, int count, Stream stream);

// --- kv_cache.cu

// Stores k, v (rows, layout.heads, head_dim) into pages; tiles (count).
void AppendKv(const float* k, const float* v, const KvPart& layout,
              ComputeType type, int head_dim, const PageRows* tiles, int count,
              void* const* pages, Stream stream);

// Fills fresh pages of one sequence: its own rows of k and v, and before them
// the cache's positions of the first page, each head copied to its group.
struct FillJob {
  const float* k = nullptr;  // (rows, fresh.layout.heads, head_dim)
  const float* v = nullptr;
  int rows = 0;
  int slot = 0;  // of the first row, in the first page
  FreshPages fresh;
  const void* cached = nullptr;  // the page that the first fresh one stands for
};
// `layout`: of the cached pages.
void FillFreshPages(const FillJob* jobs, int count, const KvPart& layout,
                    ComputeType type, int head_dim, Stream stream);

// --- mamba.cu

// One sequence's rows, and its state in this layer.
struct MambaRows {
  int row = 0;  // the first
  int rows = 0;
  float* state = nullptr;
};
// x (all rows, inner).
void CausalConvSilu(float* x, int inner, int kernel, const float* weight,
                    const float* bias, const MambaRows* jobs, int count,
                    Stream stream);
// The inputs' rows are x's. state_size is at most kMostStates.
inline constexpr int kMostStates = 1024;
void SelectiveScan(const ScanInputs& in, int inner, int state_size,
                   const MambaRows* jobs, int count, float* x, Stream stream);

// --- experts.cu

void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  Route* routes, Stream stream);
void GroupRows(const Route* routes, int rows, int chosen, int experts,
               const ExpertPlaces& to, Stream stream);
void CombineExperts(const float* x, const Route* routes,
                    const ExpertPlaces& places, int rows, int chosen, int dim,
                    float* out, Stream stream);
void GatherRows(const float* x, const int32_t* rows, int count, int dim,
                Outputs out, Stream stream);

// --- moments.cu

void AddMoments(const MomentsJob* jobs, int count, Stream stream);
void FinishNorms(const NormsJob* jobs, int count, Stream stream);
void TokenNorms(const TokenNormsJob* jobs, int count, Stream stream);

// --- disrupt.cu

void SelectDims(const SelectJob* jobs, int count, Stream stream);
void ReplaceDims(const ReplaceJob* jobs, int count, Stream stream);
void DisruptPerToken(const TokenRuleJob* jobs, int count, Stream stream);

// --- logits.cu

void ReduceLogits(const float* logits, int vocab, int rows,
                  const int32_t* targets, LogitsRow* out, Stream stream);
void TopLogits(const TopJob* jobs, int count, int vocab, Stream stream);
void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                  const LogitsRow* base_rows, const LogitsRow* arm_rows,
                  float* kl, Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_KERNELS_H_
