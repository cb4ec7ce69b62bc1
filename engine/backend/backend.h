// The ops that the forward pass needs from a device. A backend's folder has one
// file per kind of op.
//
// Ops return nothing. After a failure later ops do nothing, and Synchronize()
// returns the first failure. All float tensors are float32, row-major and
// dense; shapes are written (rows, heads, head_dim). Ops of one backend are
// called by one thread at a time.
//
// A device may still be working long after an op has returned. An op reads its
// arguments, spans and other host memory before it returns, so the caller may
// free them then. It writes to device memory only; Fetch brings results to the
// host. Free takes its place among the ops: those before it may still use the
// memory.
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
#include "engine/backend/arrival.h"
#include "engine/backend/jobs.h"
#include "engine/backend/moment.h"
#include "engine/backend/weight_rows.h"
#include "engine/base/mutex.h"
#include "engine/types/backend_info.h"
#include "engine/types/compute_type.h"
#include "engine/types/device_reading.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"

namespace qk {

class Backend;

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
  virtual MatMulChoice choice() const = 0;
};

// Whose rows are where in a pass, in the backend's own form. Its sequences are
// numbered from 0. Ops over a table's rows take those of all its sequences at
// once; rows that belong to no sequence do not change.
class RowTable {
 public:
  virtual ~RowTable() = default;
};

// What attention reads in one layer.
struct KvView {
  const RowTable* rows = nullptr;
  KvPart part;                         // of the cached pages
  absl::Span<const FreshPages> fresh;  // at most one of each sequence
  ComputeType type = ComputeType::kF32;
};

// A product of an input with a weight.
struct Product {
  const Matrix& w;
  float* out = nullptr;  // (rows, out_features)
  bool add = false;      // whether `out` keeps what it has, and the product is
                         // added
};

// How many rows a device works on at once.
struct Tiles {
  // Rows of an MLP: its intermediate values may have to stay in a cache.
  int mlp_rows = 256;
  // A pass of more rows may pause within a layer. Its attention is computed in
  // parts of this many rows, or of fewer where these together see
  // step_rows * step_keys keys.
  int step_rows = 512;
  int step_keys = 2048;
  // A tile of logits has at most this many bytes, and rows.
  int64_t logits_bytes = int64_t{24} << 20;
  int logits_rows = 128;
  // What a step sends to the host may wait in this many bytes; larger results
  // get more.
  int64_t staging_bytes = int64_t{4} << 20;
  // Rows of logits that are looked at at a time, each with a scratch of four
  // bytes a word on the host.
  int scratch_rows = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo info() const = 0;
  virtual Tiles tiles() const = 0;
  // What the device says of itself; nothing by default. Any thread may ask.
  virtual DeviceReading Read() const { return {}; }

  // Sets a function that is called once when the device is lost for good (a
  // driver that crashed, a card off the bus), even if nobody reads the status
  // that says so. It is called on any thread, and may neither wait nor call the
  // backend. nullptr: no function is called from now on.
  void SetOnLost(std::function<void(const absl::Status&)> on_lost) {
    MutexLock lock(&lost_mutex_);
    on_lost_ = std::move(on_lost);
  }

  // --- memory
  // RESOURCE_EXHAUSTED: too little memory is free. Contents are undefined.
  virtual absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) = 0;
  virtual void Free(void* data, int64_t bytes) = 0;
  virtual void Upload(void* device, const void* host, int64_t bytes) = 0;
  virtual void CopyOnDevice(absl::Span<const CopyJob> jobs) = 0;
  virtual void Zero(void* device, int64_t bytes) = 0;
  // Copies `bytes` to the host, in the order of the ops: later ones may
  // overwrite them. Nothing waits for the copy, so results go out while the
  // pass runs. Any number of arrivals may be held, for any time.
  virtual Arrival Fetch(const void* device, int64_t bytes) = 0;
  // The moment at which the device will have done the ops so far.
  virtual std::unique_ptr<Moment> Mark() = 0;
  // Waits for the device; returns the first failure since the last call.
  virtual absl::Status Synchronize() = 0;

  // --- weights
  // `bias`: (out) or nullptr.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(
      int64_t out_features, int64_t in_features, ComputeType type,
      const WeightRows& rows, const float* bias) = 0;
  // A table (n, width) in the compute type, as Embed reads it.
  virtual absl::StatusOr<DeviceBuffer> PackTable(int64_t n, int64_t width,
                                                 ComputeType type,
                                                 const WeightRows& rows) = 0;

  // --- the forward pass
  // Once per pass, and again when a sequence leaves it.
  virtual absl::StatusOr<std::unique_ptr<RowTable>> MakeRowTable(
      absl::Span<const SequenceRows> sequences) = 0;
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
  // Each product's out (rows, out_features) = x (rows, in_features) W^T + bias,
  // or += that. The weights have one type. A row's bytes depend neither on the
  // other rows and their number nor on the other products.
  virtual void MatMul(const float* x, absl::Span<const Product> products,
                      int rows) = 0;
  // The same in rows [range[0], range[1]) of x and of each out, which are at
  // most `rows`. range (2): device memory.
  virtual void MatMulRange(const float* x, absl::Span<const Product> products,
                           int rows, const int32_t* range) = 0;
  // table (rows, 2, rotary / 2) = cos, sin of each row's position, times the
  // attention factor, as FillRopeRow (rope_rows.h).
  virtual void MakeRopeTable(const RopeConfig& rope,
                             absl::Span<const RopeRows> rows, float* table) = 0;
  // Rotates pairs (i, i + rotary / 2) of x (rows, heads, head_dim) in place.
  // table: (rows, 2, rotary / 2) = cos, sin.
  virtual void Rope(float* x, int64_t rows, int heads, int head_dim,
                    int rotary_dims, const float* table) = 0;
  // Stores k and v (rows, part.heads, head_dim) in the sequences' pages; fills
  // fresh pages with their own k and v and with the cache's positions before
  // the first row, each head copied to its group.
  virtual void AppendKv(const float* k, const float* v, int head_dim,
                        const KvView& kv) = 0;
  // out (rows, heads, head_dim) = softmax(softcap(scale q K^T), causal, window)
  // V in rows [of.begin, of.end). Without causal a row sees all positions up to
  // its sequence's last one.
  virtual void Attention(const float* q, const AttentionConfig& config,
                         const KvView& kv, Range of, float* out) = 0;
  virtual void AttentionPattern(const float* q, const AttentionConfig& config,
                                const KvView& kv,
                                absl::Span<const PatternJob> jobs) = 0;
  // x (n) = activation(x), times `times` (n) unless that is nullptr.
  virtual void Activate(float* x, const float* times, int64_t n,
                        Activation activation) = 0;
  // x (n) = cap * tanh(x / cap).
  virtual void Softcap(float* x, int64_t n, float cap) = 0;
  // x (n) += y.
  virtual void Add(float* x, const float* y, int64_t n) = 0;
  // x (n) *= factor.
  virtual void Scale(float* x, int64_t n, float factor) = 0;

  // x (rows, inner) = silu(causal depthwise convolution of x + bias). weight
  // (inner, kernel); bias (inner) or nullptr. Each sequence has a state
  // (inner, kernel - 1), `offset` floats from its first one: the inputs before
  // these rows, oldest first; the op updates it.
  virtual void CausalConvSilu(float* x, const RowTable& rows, int inner,
                              int kernel, const float* weight,
                              const float* bias, int64_t offset) = 0;
  // x (rows, inner) = (scan(x) + d * x) * silu(gate). Each sequence has a state
  // (inner, state_size) from before these rows, as above.
  virtual void SelectiveScan(const ScanInputs& in, const RowTable& rows,
                             int inner, int state_size, int64_t offset,
                             float* x) = 0;
  // routes (rows, chosen) = each row's most probable experts, most probable
  // first, ties to the lowest. logits (rows, experts).
  virtual void RouteExperts(const float* logits, int rows, int experts,
                            int chosen, Route* routes) = 0;
  // Groups rows by the experts of their routes (rows, chosen).
  virtual void GroupRows(const Route* routes, int rows, int chosen, int experts,
                         const ExpertPlaces& to) = 0;
  // out (places, dim) = each place's row of x. row (places): device memory.
  virtual void GatherPlaces(const float* x, const int32_t* row, int places,
                            int dim, float* out) = 0;
  // out (rows, dim) = each row's sum over ascending experts of the weights of
  // its routes (rows, chosen) times its places' x (rows * chosen, dim).
  virtual void CombineExperts(const float* x, const Route* routes,
                              const ExpertPlaces& places, int rows, int chosen,
                              int dim, float* out) = 0;
  // out (rows.size(), dim) = those rows of x.
  virtual void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                          float* out) = 0;

  // --- hooks: jobs.h says what each op does. A call's jobs, from one sequence
  // or several, do not touch each other's memory.
  // AddMoments sums in blocks of kPageSize absolute positions.
  virtual void AddMoments(absl::Span<const MomentsJob> jobs) = 0;
  virtual void SelectDims(absl::Span<const SelectJob> jobs) = 0;
  virtual void ReplaceDims(absl::Span<const ReplaceJob> jobs) = 0;
  virtual void DisruptPerToken(absl::Span<const TokenRuleJob> jobs) = 0;
  virtual void ExpandHeads(absl::Span<const ExpandJob> jobs) = 0;
  virtual void FinishNorms(absl::Span<const NormsJob> jobs) = 0;
  virtual void TokenNorms(absl::Span<const TokenNormsJob> jobs) = 0;
  virtual void CopyOut(absl::Span<const CopyOutJob> jobs) = 0;

  // --- logits
  // out (targets.size()) = logits (targets.size(), vocab), each row reduced.
  // targets (host): the id whose log-probability is wanted, or -1.
  virtual void ReduceLogits(const float* logits, int vocab,
                            absl::Span<const int32_t> targets,
                            LogitsRow* out) = 0;
  virtual void TopLogits(absl::Span<const TopJob> jobs, int vocab) = 0;
  // kl (rows) = KL(P_base || P_arm), nats. base_rows and arm_rows (rows):
  // ReduceLogits's results for base and arm.
  virtual void KlDivergence(const float* base, const float* arm, int vocab,
                            int rows, const LogitsRow* base_rows,
                            const LogitsRow* arm_rows, float* kl) = 0;

 protected:
  // Reports that the device is lost for good. Returns UNAVAILABLE, which
  // Synchronize and everything else that has a status return from then on.
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
