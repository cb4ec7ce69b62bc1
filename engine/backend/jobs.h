// What ops are given, as plain data: it can travel with a kernel's launch.
// Pointers are to device memory but where said otherwise.
#ifndef QKSCOPE_ENGINE_BACKEND_JOBS_H_
#define QKSCOPE_ENGINE_BACKEND_JOBS_H_

#include <cstdint>
#include <type_traits>

#include "engine/types/spec.h"

namespace qk {

// Positions of one KV page, of one tile of attention's keys, and of one block
// of a sum over tokens: all start at absolute position 0.
inline constexpr int kPageSize = 64;

// --- views

// One layer's part of 64 positions of keys and values, in the compute type.
// k is transposed, so that scores of neighbouring keys lie side by side.
struct KvPage {
  void* k = nullptr;  // (heads, head_dim, kPageSize)
  void* v = nullptr;  // (heads, kPageSize, head_dim)
  int heads = 0;      // the model's KV heads, or its query heads where each
                      // query head reads keys of its own
};

// One sequence's part of an attention op.
struct AttentionRows {
  int row_begin = 0;  // in q and out
  int rows = 0;
  int first_position = 0;         // of its first row
  const KvPage* pages = nullptr;  // host memory; page p: positions 64 p on
};

// A view of one sequence's rows: (rows, heads, head_dim), dense.
struct HeadRows {
  float* data = nullptr;
  int rows = 0;
  int heads = 0;
  int head_dim = 0;
  int first_position = 0;
};

// Some rows of a HeadRows, ascending: the i-th is row begin + i, or with a list
// row begin + list[i].
struct RowSet {
  int begin = 0;
  int count = 0;
  const int32_t* list = nullptr;  // (count), ascending
};

// Some heads of a tensor: the first `count`, or those of a list.
struct HeadSet {
  int count = 0;
  const int32_t* list = nullptr;  // (count), ascending
};

// What a selective scan (Mamba, arXiv:2312.00752, algorithm 2) reads.
struct ScanInputs {
  const float* dt = nullptr;     // (rows, inner), before softplus
  const float* b = nullptr;      // (rows, state)
  const float* c = nullptr;      // (rows, state)
  const float* gate = nullptr;   // (rows, inner)
  const float* a_log = nullptr;  // (inner, state); A = -exp(a_log)
  const float* d = nullptr;      // (inner)
};

// --- hooks

// Sums over tokens of each (head, dim), float64: (heads, head_dim) each.
struct Moments {
  double* squares = nullptr;
  double* sums = nullptr;  // nullptr: not wanted
};

// What a rule chose: (heads, head_dim) each; by a per_token rule mask
// (rows, heads, head_dim) and values (rows).
struct Choice {
  uint8_t* mask = nullptr;  // 1 = chosen
  float* values = nullptr;  // what is written there; unused for kScale
};

// How a rule sees one physical head of a tensor.
struct HeadRole {
  bool active = false;
  int id = 0;  // head number in the rule's own counting (for random choices)
};

// A DisruptionRule as it acts on one tensor of one layer, made once for a
// sequence.
struct TensorRule {
  DisruptionRule::Select select = DisruptionRule::Select::kTopK;
  int k = 0;
  int exclude_top = 0;
  uint64_t seed = 0;
  double lambda = 0;
  int num_entries = 0;
  const HeadDim* entries = nullptr;  // (num_entries), heads by their id
  DisruptionRule::Replace replace = DisruptionRule::Replace::kPooledMean;
  double factor = 0;
  Qkv tensor = Qkv::kQ;
  int layer = 0;
  int num_heads = 0;                // physical
  const HeadRole* heads = nullptr;  // (num_heads)
};

// Adds x[row, h, d]^2 (and x) of the rows to moments, or to zeros.
struct MomentsJob {
  HeadRows x;
  RowSet rows;
  Moments to;
  bool from_zero = false;
};

// Chooses dims within each head, from moments over `count` positions.
struct SelectJob {
  TensorRule rule;
  int step = 0;  // 0: prefill; 1 + decode step
  Moments from;
  int64_t count = 0;
  int head_dim = 0;
  Choice to;
};

// Writes a choice into the rows.
struct ReplaceJob {
  HeadRows x;
  RowSet rows;
  Choice choice;
  DisruptionRule::Replace replace = DisruptionRule::Replace::kPooledMean;
  double factor = 0;  // kScale
};

// A per_token rule: chooses and writes row by row, and tells what it did.
struct TokenRuleJob {
  TensorRule rule;
  int step = 0;  // as in SelectJob
  HeadRows x;
  RowSet rows;
  Choice to;
};

// to (rows, to_heads, head_dim): each head repeated to its group.
struct ExpandJob {
  HeadRows x;
  int to_heads = 0;
  float* to = nullptr;
};

// to (heads chosen, head_dim) = sqrt(squares (heads, head_dim)).
struct NormsJob {
  const double* squares = nullptr;
  HeadSet heads;
  int head_dim = 0;
  float* to = nullptr;
};

// to (rows chosen, heads chosen) = L2 norm over head_dim.
struct TokenNormsJob {
  HeadRows x;
  RowSet rows;
  HeadSet heads;
  float* to = nullptr;
};

// to (rows chosen, heads chosen, head_dim), in `dtype`.
struct CopyOutJob {
  HeadRows x;
  RowSet rows;
  HeadSet heads;
  RawDtype dtype = RawDtype::kF32;
  void* to = nullptr;
};

// --- logits

// What a row of a vocabulary-sized tensor of logits reduces to.
struct LogitsRow {
  float target_logprob = 0;  // 0: no target
  int32_t top1 = 0;          // ties to the lowest id
  float top1_logprob = 0;
  double log_sum_exp = 0;
};

template <typename... Jobs>
inline constexpr bool kPlainData = (std::is_trivially_copyable_v<Jobs> && ...);
static_assert(kPlainData<AttentionRows, ScanInputs, MomentsJob, SelectJob,
                         ReplaceJob, TokenRuleJob, ExpandJob, NormsJob,
                         TokenNormsJob, CopyOutJob, LogitsRow>);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_JOBS_H_
