// A Run is one request on the device: its arms, as sequences that a scheduler
// puts into ragged batches, and what comes out of them.
//
// Life, all on the device's scheduler thread but where said otherwise:
//   Create -> Reserve -> { AppendReady -> (a pass) -> AfterPass
//                          -> CompareTile* }* -> finished.
#ifndef QKSCOPE_ENGINE_RUN_H_
#define QKSCOPE_ENGINE_RUN_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/spec.h"
#include "engine/statistics.h"

namespace qk {

class Sequence;

// One captured tensor, whole.
struct LayerFrame {
  int arm = 0;
  int layer = 0;
  HookPoint point = HookPoint::kQ;
  Stage stage = Stage::kBefore;
  Phase phase = Phase::kPrefill;
  int step = -1;      // decode step; -1: none
  int position = -1;  // of a decode step's row; -1: the spec's
  CaptureForm form = CaptureForm::kNormOverTokens;
  RawDtype dtype = RawDtype::kF32;
  std::vector<int> shape;  // as in spec.proto's CaptureForm
  std::vector<int> heads;  // of the tensor, that the frame holds
  bool no_rope = false;    // a post-RoPE point of a layer that has none
  int image = -1;    // of the vision tower over this image; -1: the text's
  std::string data;  // row-major little-endian
  std::optional<Statistics> statistics;
};

struct AppliedDims {
  int index = 0;  // head, or absolute position (per_token)
  std::vector<int> dims;
  std::vector<float> values;  // written; empty for kScale
};

struct AppliedRule {
  int arm = 0;
  int rule = 0;
  int layer = 0;
  Qkv tensor = Qkv::kQ;
  Phase phase = Phase::kPrefill;
  int step = -1;
  std::vector<AppliedDims> chosen;
  int64_t replaced = 0;  // scalar values written
  int image = -1;        // as in LayerFrame
};

struct TokenEvent {
  int arm = 0;
  int step = 0;
  int32_t id = 0;
  std::string text;  // what the token completed, whole characters
  float logprob = 0;
};

struct ComparisonResult {
  int arm = 0;
  std::vector<float> kl;             // (tokens), nats, KL(P_base || P_arm)
  std::vector<int32_t> top1;         // (tokens), this arm's
  std::vector<bool> top1_flip;       // (tokens)
  std::vector<float> token_logprob;  // (tokens), [0] is 0
};

struct PositionLogits {
  int position = 0;
  std::vector<int32_t> ids;  // most likely first
  std::vector<float> logprobs;
};

struct ScoreResult {
  int arm = 0;
  std::vector<float> token_logprob;  // (score.size())
  std::vector<bool> greedy;          // (score.size())
};

struct ArmSummary {
  int generated_tokens = 0;
  std::string text;
  std::string stop_reason;  // "length", "stop_token", "stop_string" or empty
};

struct RunTimes {  // seconds of the device, shared passes by share of rows
  double prefill = 0;
  double decode = 0;
  double capture = 0;
  double compare = 0;
};

// Receives a run's results on the scheduler's thread, in api.md's order. Must
// not block and must not call back into the run.
class RunSink {
 public:
  virtual ~RunSink() = default;
  virtual void OnLayer(LayerFrame frame) = 0;
  virtual void OnApplied(AppliedRule applied) = 0;
  virtual void OnToken(TokenEvent token) = 0;
  virtual void OnComparison(ComparisonResult comparison) = 0;
  virtual void OnLogits(int arm, std::vector<PositionLogits> logits) = 0;
  virtual void OnScore(ScoreResult score) = 0;
  // The last call. OK, or why the run ended early.
  virtual void OnFinished(const absl::Status& status,
                          const std::vector<ArmSummary>& arms,
                          const RunTimes& times) = 0;
};

// What a run will need, from its spec alone, in checked arithmetic.
struct RunEstimate {
  int64_t stream_bytes = 0;  // payloads of all Layer frames, at most
  int64_t kv_pages = 0;      // over all arms
  // Pages, rows, capture and logits buffers, images.
  int64_t peak_extra_bytes = 0;
  int64_t prefill_rows = 0;  // over all arms and towers
};

class Run {
 public:
  // RESOURCE_EXHAUSTED when a size overflows int64. CheckImages must have found
  // the images good.
  static absl::StatusOr<RunEstimate> Estimate(const RunSpec& spec);

  // Any thread. `sink` must outlive the run.
  static absl::StatusOr<std::unique_ptr<Run>> Create(RunSpec spec,
                                                     RunSink* sink);
  virtual ~Run() = default;

  // Takes all the memory the run will use. RESOURCE_EXHAUSTED: not now; it may
  // be called again once other runs have ended. A run that could never fit
  // says so with FAILED_PRECONDITION.
  virtual absl::Status Reserve() = 0;

  // The model that the run's next sequences belong to; nullptr when it has
  // none because it is finished.
  virtual const Model* next_model() const = 0;
  // The sequences of `model` that want rows in the next pass.
  virtual void AppendReady(const Model* model, std::vector<Sequence*>* out) = 0;
  // After a pass in which `ran` of this run's sequences had rows: samples,
  // compares, sends events. `status`: the pass's. `seconds`: this run's share.
  virtual void AfterPass(absl::Span<Sequence* const> ran,
                         const absl::Status& status, double seconds) = 0;
  virtual bool finished() const = 0;

  // A comparison goes on between passes, a tile at a time: while there is one,
  // no sequence is ready.
  virtual bool comparing() const = 0;
  virtual void CompareTile() = 0;

  // Any thread, any time: the run ends between two steps.
  virtual void Cancel(absl::Status reason) = 0;
  virtual bool cancelled() const = 0;
  // Ends a run that is cancelled or never ran: OnFinished with the reason.
  // No-op when finished.
  virtual void FinishCancelled() = 0;

  virtual const RunSpec& spec() const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_H_
