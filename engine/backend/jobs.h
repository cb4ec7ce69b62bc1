// The arguments of ops, as plain data that can travel with a kernel's launch.
// Pointers are to device memory unless a comment says otherwise.
#ifndef QKSCOPE_ENGINE_BACKEND_JOBS_H_
#define QKSCOPE_ENGINE_BACKEND_JOBS_H_

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "absl/types/span.h"
#include "engine/types/rope_rows.h"
#include "engine/types/spec.h"

namespace qk {

// One KV page, one tile of attention's keys and one block of a sum over tokens
// have this many positions. The first of each starts at absolute position 0.
inline constexpr int kPageSize = 64;

// --- views

// One sequence's rows in a pass, and what it keeps on the device.
struct SequenceRows {
  int row_begin = 0;
  int rows = 0;
  int first_position = 0;  // absolute, of the first row
  // The pages (host list) of positions 0, 64, 128... Each has the keys and
  // values of all layers.
  absl::Span<void* const> pages;
  float* state = nullptr;  // of all Mamba layers
};

// Where one layer's keys and values lie in a page: each (heads, head_dim,
// kPageSize) values of the compute type, in the backend's own order.
struct KvPart {
  int64_t k_offset = 0;  // bytes
  int64_t v_offset = 0;
  int heads = 0;  // the model's KV heads, or its query heads if each query head
                  // reads keys of its own

  bool operator==(const KvPart&) const = default;
};

// Pages of one layer that stand for the cache's in the positions of a
// sequence's rows, and what they hold.
struct FreshPages {
  int sequence = 0;          // its number in the RowTable
  const float* k = nullptr;  // (rows, part.heads, head_dim)
  const float* v = nullptr;
  KvPart part;
  void* base = nullptr;  // the page of the first row; the next at base + stride
  int64_t stride = 0;    // bytes
};

// The rows of a RoPE table from row_begin on that rotate by the same
// frequencies. Both lists are in host memory.
struct RopeRows {
  int row_begin = 0;
  absl::Span<const RopePosition> positions;  // one per row
  absl::Span<const double> frequencies;      // (rotary / 2)
};

// A view of one sequence's rows: (rows, heads, head_dim), dense.
struct HeadRows {
  float* data = nullptr;
  int rows = 0;
  int heads = 0;
  int head_dim = 0;
  int first_position = 0;
};

// Some rows of a HeadRows, ascending. The i-th is row begin + i, or, with a
// list, row begin + list[i].
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

// The attention probabilities of some rows and heads of one sequence: to
// (rows chosen, heads chosen, keys), 0 after the row's own position.
struct PatternJob {
  int sequence = 0;  // its number in the RowTable
  RowSet rows;
  HeadSet heads;
  int keys = 0;
  float* to = nullptr;
};

// The inputs of a selective scan (Mamba, arXiv:2312.00752, algorithm 2). rows:
// those of all sequences.
struct ScanInputs {
  const float* dt = nullptr;     // (rows, inner), before softplus
  const float* b = nullptr;      // (rows, state)
  const float* c = nullptr;      // (rows, state)
  const float* gate = nullptr;   // (rows, inner)
  const float* a_log = nullptr;  // (inner, state); A = -exp(a_log)
  const float* d = nullptr;      // (inner)
};

// to (bytes) = from. They do not overlap.
struct CopyJob {
  void* to = nullptr;
  const void* from = nullptr;
  int64_t bytes = 0;
};

// An expert that a row goes to, and its softmax probability.
struct Route {
  int32_t expert = 0;
  float weight = 0;
};

// Rows grouped by the experts that they go to, each expert's rows in ascending
// order. A place is one row at one of its experts.
struct ExpertPlaces {
  int32_t* begin =
      nullptr;             // (experts + 1): expert e has [begin[e], begin[e+1])
  int32_t* row = nullptr;  // (rows * chosen): of each place
  int32_t* of_route = nullptr;  // (rows, chosen): the place of each route
};

// --- hooks

// Sums over tokens for each head and dim, float64: (heads, head_dim) each.
struct Moments {
  double* squares = nullptr;
  double* sums = nullptr;  // nullptr: not wanted
};

// The dims that a rule chose: mask and values (heads, head_dim). A per_token
// rule has mask (rows, heads, head_dim) and values (rows).
struct Choice {
  uint8_t* mask = nullptr;  // 1 = chosen
  float* values = nullptr;  // written into chosen dims; unused for kScale
};

// How a rule sees one physical head of a tensor.
struct HeadRole {
  bool active = false;
  int id = 0;  // the head's number as the rule counts (for random choices)
};

// A DisruptionRule as it acts on one tensor of one layer. Each sequence makes
// it once.
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

// Adds x[row, h, d]^2 of the rows to to.squares, and x to to.sums. With
// from_zero the sums start from 0.
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

// Applies a per_token rule row by row, and stores its choice in `to`.
struct TokenRuleJob {
  TensorRule rule;
  int step = 0;  // as in SelectJob
  HeadRows x;
  RowSet rows;
  Choice to;
};

// to (rows, to_heads, head_dim) = x, each head repeated for its group.
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

// to (rows chosen, heads chosen) = the L2 norms over head_dim.
struct TokenNormsJob {
  HeadRows x;
  RowSet rows;
  HeadSet heads;
  float* to = nullptr;
};

// to (rows chosen, heads chosen, head_dim) = x, converted to `dtype`.
struct CopyOutJob {
  HeadRows x;
  RowSet rows;
  HeadSet heads;
  RawDtype dtype = RawDtype::kF32;
  void* to = nullptr;
};

// --- logits

// One row of logits (vocab), reduced. A row with a value that is not finite is
// no distribution: its log-probabilities are NaN, and its top1 means nothing.
struct LogitsRow {
  float target_logprob = 0;  // 0: no target
  int32_t top1 = 0;          // ties to the lowest id
  float top1_logprob = 0;
  double log_sum_exp = 0;

  bool finite() const { return std::isfinite(log_sum_exp); }
};

struct TopLogit {
  int32_t id = 0;
  float logprob = 0;
};

// to (n) = the most likely ids of one row (vocab) of logits, ties to the lowest
// id. `reduced`: the row's LogitsRow.
struct TopJob {
  const float* logits = nullptr;
  const LogitsRow* reduced = nullptr;
  int n = 0;
  TopLogit* to = nullptr;
};

template <typename... Jobs>
inline constexpr bool kPlainData = (std::is_trivially_copyable_v<Jobs> && ...);
static_assert(kPlainData<KvPart, FreshPages, PatternJob, ScanInputs, MomentsJob,
                         SelectJob, ReplaceJob, TokenRuleJob, ExpandJob,
                         NormsJob, TokenNormsJob, CopyOutJob, CopyJob, Route,
                         ExpertPlaces, LogitsRow, TopLogit, TopJob>);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_JOBS_H_
