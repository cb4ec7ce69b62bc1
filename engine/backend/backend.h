// What the forward pass needs of a device. Two implementations have the same
// files in the same order: cpu/*.cc and cuda/*.cu.
//
// Ops return nothing. The first failure sticks, later ops do nothing, and
// Synchronize() returns it. All float tensors are float32, row-major and dense;
// shapes are written (rows, heads, head_dim). Ops of one backend are called by
// one thread at a time.
#ifndef QKSCOPE_ENGINE_BACKEND_BACKEND_H_
#define QKSCOPE_ENGINE_BACKEND_BACKEND_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/base/mutex.h"
#include "engine/types/backend_info.h"
#include "engine/types/compute_type.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"

namespace qk {

class Backend;

// Positions of one KV page, of one tile of attention's keys, and of one block
// of a sum over tokens: all start at absolute position 0.
inline constexpr int kPageSize = 64;

// Device memory, freed with the object. Movable.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(void* data, int64_t bytes, Backend* backend)
      : data_(data), bytes_(bytes), backend_(backend) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(backend_, other.backend_);
    return *this;
  }
  ~DeviceBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Backend* backend_ = nullptr;
};

// A weight (out, in) in the backend's own layout and compute type.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int out_features() const = 0;
  virtual int in_features() const = 0;
  virtual int64_t bytes() const = 0;
};

// Writes rows [begin, end) of a weight, float32 (end - begin, in), to `out`.
// Called from several threads at once.
using RowReader = std::function<void(int64_t begin, int64_t end, float* out)>;

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

// Sums over tokens of each (head, dim), float64: (heads, head_dim) each.
struct Moments {
  double* squares = nullptr;
  double* sums = nullptr;  // may be nullptr: not wanted
};

// How a rule sees one physical head of a tensor.
struct HeadRole {
  bool active = false;
  int id = 0;  // head number in the rule's own counting (for random choices)
};

// A DisruptionRule as it acts on one tensor of one layer at one step.
struct Selection {
  const DisruptionRule* rule = nullptr;
  Qkv tensor = Qkv::kQ;
  int layer = 0;
  int step = 0;                      // 0: prefill; 1 + decode step
  absl::Span<const HeadRole> heads;  // one per physical head
};

// What SelectDims chose: (heads, head_dim) each.
struct Choice {
  uint8_t* mask = nullptr;  // 1 = chosen
  float* values = nullptr;  // what is written there; unused for kScale
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

// Per row of a vocabulary-sized tensor of logits.
struct LogitsRow {
  int32_t target = -1;       // in: id whose log-probability is wanted, or -1
  float target_logprob = 0;  // out
  int32_t top1 = 0;          // out; ties to the lowest id
  float top1_logprob = 0;    // out
  double log_sum_exp = 0;    // out
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo info() const = 0;

  // `on_lost` is told once of a device that has gone for good (a driver that
  // fell over, a card off the bus), whatever becomes of the status that says
  // so. On any thread: it may neither wait nor call the backend. nullptr: from
  // now on nobody is told.
  void SetOnLost(std::function<void(const absl::Status&)> on_lost) {
    MutexLock lock(&lost_mutex_);
    on_lost_ = std::move(on_lost);
  }

  // --- memory
  // RESOURCE_EXHAUSTED when there is none. Contents are undefined.
  virtual absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) = 0;
  virtual void Free(void* data, int64_t bytes) = 0;
  virtual void Upload(void* device, const void* host, int64_t bytes) = 0;
  // `host` holds the data after Synchronize.
  virtual void Download(void* host, const void* device, int64_t bytes) = 0;
  virtual void CopyOnDevice(void* to, const void* from, int64_t bytes) = 0;
  virtual void Zero(void* device, int64_t bytes) = 0;
  // A mark after the Downloads so far, and whether they have arrived: results
  // go out while the pass runs, and nothing waits for them.
  virtual int64_t MarkDownloads() = 0;
  virtual bool DownloadsArrived(int64_t mark) = 0;
  // Waits; the first failure since the last call.
  virtual absl::Status Synchronize() = 0;

  // --- weights
  // `bias` (out) or nullptr.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const RowReader& rows, const float* bias) = 0;

  // --- the forward pass
  // out (rows, hidden) = table (vocab, hidden) at `tokens` (rows, host).
  virtual void Embed(const void* table, ComputeType type,
                     absl::Span<const int32_t> tokens, int hidden,
                     float* out) = 0;
  // out (rows, dim) = x / rms(x) * weight (dim); out may be x.
  virtual void RmsNorm(const float* x, const float* weight, float eps, int rows,
                       int dim, float* out) = 0;
  // out (rows, dim) = (x - mean(x)) / std(x) * weight + bias (dim); out may be
  // x.
  virtual void LayerNorm(const float* x, const float* weight, const float* bias,
                         float eps, int rows, int dim, float* out) = 0;
  // out (rows, out_features) = x (rows, in_features) W^T + bias. A row's bytes
  // do not depend on the other rows or their number.
  virtual void MatMul(const float* x, const Matrix& w, int rows,
                      float* out) = 0;
  // Rotates pairs (i, i + rotary / 2) of x (rows, heads, head_dim) in place.
  // table: (rows, 2, rotary / 2) = cos, sin.
  virtual void Rope(float* x, int64_t rows, int heads, int head_dim,
                    int rotary_dims, const float* table) = 0;
  // Stores k, v (rows, heads, head_dim) of one sequence into its pages.
  virtual void AppendKv(const HeadRows& k, const HeadRows& v, ComputeType type,
                        const KvPage* pages) = 0;
  // Copies the first `positions` of a page; to.heads may be a multiple of
  // from.heads, each head then copied to its group.
  virtual void CopyKvPage(const KvPage& from, const KvPage& to, int positions,
                          int head_dim, ComputeType type) = 0;
  // out (rows, heads, head_dim) = softmax(softcap(scale q K^T), causal, window)
  // V. Not causal: a row sees all positions up to its sequence's last one.
  virtual void Attention(const float* q, const AttentionConfig& config,
                         absl::Span<const AttentionRows> sequences,
                         ComputeType type, float* out) = 0;
  // Probabilities of chosen rows: out (rows, heads chosen, keys), 0 after the
  // row's own position. `rows`: offsets into the sequence's rows.
  virtual void AttentionPattern(const float* q, const AttentionConfig& config,
                                const AttentionRows& sequence,
                                absl::Span<const int> rows,
                                absl::Span<const int> heads, int keys,
                                ComputeType type, float* out) = 0;
  // x (n) = activation(x), times `times` (n) unless that is nullptr.
  virtual void Activate(float* x, const float* times, int64_t n,
                        Activation activation) = 0;
  // x (n) = cap * tanh(x / cap).
  virtual void Softcap(float* x, int64_t n, float cap) = 0;
  // x (n) += y.
  virtual void Add(float* x, const float* y, int64_t n) = 0;
  // x (n) *= factor.
  virtual void Scale(float* x, int64_t n, float factor) = 0;

  // x (rows, inner) of one sequence = silu(causal depthwise convolution of x +
  // bias). weight (inner, kernel); bias (inner) or nullptr; state
  // (inner, kernel - 1): the inputs before these rows, oldest first, updated.
  virtual void CausalConvSilu(float* x, int rows, int inner, int kernel,
                              const float* weight, const float* bias,
                              float* state) = 0;
  // x (rows, inner) of one sequence = (scan(x) + d * x) * silu(gate). state
  // (inner, state_size): before these rows, updated.
  virtual void SelectiveScan(const ScanInputs& in, int rows, int inner,
                             int state_size, float* state, float* x) = 0;
  // Per row the `chosen` most probable experts, most probable first, ties to
  // the lowest, and their softmax probabilities: (rows, chosen) each, in host
  // memory after Synchronize. logits (rows, experts).
  virtual void RouteExperts(const float* logits, int rows, int experts,
                            int chosen, int32_t* ids, float* weights) = 0;
  // out (rows.size(), dim) = those rows of x.
  virtual void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                          float* out) = 0;
  // Row rows[i] of out += factors[i] * row i of x (rows.size(), dim).
  virtual void AddScaledRows(const float* x, absl::Span<const int> rows,
                             absl::Span<const float> factors, int dim,
                             float* out) = 0;

  // --- hooks
  // Adds x[row, h, d]^2 (and x) of the chosen rows to the moments, summed in
  // blocks of kPageSize absolute positions. `rows`: ascending offsets.
  virtual void AddMoments(const HeadRows& x, absl::Span<const int> rows,
                          const Moments& moments) = 0;
  // Chooses dims within each head from moments over `count` positions.
  virtual void SelectDims(const Selection& selection, const Moments& moments,
                          int64_t count, int head_dim,
                          const Choice& choice) = 0;
  // Writes a choice into the rows.
  virtual void ReplaceDims(const DisruptionRule& rule, const Choice& choice,
                           absl::Span<const int> rows, const HeadRows& x) = 0;
  // A per_token rule: chooses and writes row by row. mask (chosen rows,
  // heads, head_dim) and values (chosen rows) tell what it did.
  virtual void DisruptPerToken(const Selection& selection,
                               absl::Span<const int> rows, const HeadRows& x,
                               const Choice& choice) = 0;
  // out (rows, to_heads, head_dim): each head repeated to its group.
  virtual void ExpandHeads(const HeadRows& x, int to_heads, float* out) = 0;
  // out (heads chosen, head_dim) = sqrt(squares).
  virtual void FinishNorms(const double* squares, absl::Span<const int> heads,
                           int head_dim, float* out) = 0;
  // out (rows chosen, heads chosen) = L2 norm over head_dim.
  virtual void TokenNorms(const HeadRows& x, absl::Span<const int> rows,
                          absl::Span<const int> heads, float* out) = 0;
  // out (rows chosen, heads chosen, head_dim), in `dtype`.
  virtual void CopyOut(const HeadRows& x, absl::Span<const int> rows,
                       absl::Span<const int> heads, RawDtype dtype,
                       void* out) = 0;

  // --- logits; results are in host memory after Synchronize
  // Fills the out fields from logits (rows, vocab).
  virtual void ReduceLogits(const float* logits, int vocab,
                            absl::Span<LogitsRow> rows) = 0;
  // The n most likely ids of one row, ties to the lowest id.
  virtual void TopLogits(const float* logits, int vocab, int n,
                         double log_sum_exp, int32_t* ids, float* logprobs) = 0;
  // kl (rows) = KL(P_base || P_arm), nats.
  virtual void KlDivergence(const float* base, const float* arm, int vocab,
                            absl::Span<const LogitsRow> base_rows,
                            absl::Span<const LogitsRow> arm_rows,
                            float* kl) = 0;

 protected:
  // UNAVAILABLE: what Synchronize returns of a device that has gone for good,
  // and from then on everything that has a status.
  absl::Status Lost(absl::string_view message) {
    const absl::Status status = absl::UnavailableError(message);
    MutexLock lock(&lost_mutex_);
    if (on_lost_ != nullptr) std::exchange(on_lost_, nullptr)(status);
    return status;
  }

 private:
  Mutex lost_mutex_;
  std::function<void(const absl::Status&)> on_lost_
      ABSL_GUARDED_BY(lost_mutex_);
};

inline DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) backend_->Free(data_, bytes_);
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_BACKEND_H_
