// What comes out of a run, as plain data, and who receives it.
#ifndef QKSCOPE_ENGINE_TYPES_RESULTS_H_
#define QKSCOPE_ENGINE_TYPES_RESULTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/types/spec.h"
#include "engine/types/statistics.h"

namespace qk {

// One whole captured tensor.
struct LayerFrame {
  int arm = 0;
  int layer = 0;
  HookPoint point = HookPoint::kQ;
  Stage stage = Stage::kBefore;
  Phase phase = Phase::kPrefill;
  int step = -1;      // decode step; -1: none
  int position = -1;  // the position of a decode step's row; -1: see the spec
  CaptureForm form = CaptureForm::kNormOverTokens;
  RawDtype dtype = RawDtype::kF32;
  std::vector<int> shape;  // see CaptureForm in spec.proto
  std::vector<int> heads;  // the tensor's heads that the frame holds
  // How many query heads read each of these heads. 1: they are query heads.
  int group_size = 1;
  bool no_rope =
      false;       // whether this is a post-RoPE point of a layer without RoPE
  int image = -1;  // the image that the vision tower saw; -1: the text
  std::string data;  // row-major little-endian
  // Set if the frame has statistics: what they take beside the data.
  std::optional<StatisticsInputs> statistics_inputs;
  std::optional<Statistics> statistics;  // once ComputeStatistics has run

  // Sets `statistics` if the frame has them. It takes some microseconds, so it
  // is not for the scheduler's thread.
  void ComputeStatistics();
};

struct AppliedDims {
  int index = 0;  // head, or absolute position (per_token)
  std::vector<int> dims;
  std::vector<float> values;  // the written values; empty for kScale
};

struct AppliedRule {
  int arm = 0;
  int rule = 0;
  int layer = 0;
  Qkv tensor = Qkv::kQ;
  Phase phase = Phase::kPrefill;
  int step = -1;
  std::vector<AppliedDims> chosen;
  int64_t replaced = 0;  // number of scalar values written
  int image = -1;        // as in LayerFrame
};

struct TokenEvent {
  int arm = 0;
  int step = 0;
  int32_t id = 0;
  std::string text;  // the text that the token completed, in whole characters
  float logprob = 0;
};

struct ComparisonResult {
  int arm = 0;
  // (tokens), nats, KL(P_base || P_arm); NaN where the logits of one of them
  // are not finite.
  std::vector<float> kl;
  // (tokens), the arm's own most likely ids; -1 where its logits are not
  // finite.
  std::vector<int32_t> top1;
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
  std::vector<float> token_logprob;  // (score.size()); NaN: logits not finite
  std::vector<bool> greedy;          // (score.size())
};

struct ArmSummary {
  int generated_tokens = 0;
  std::string text;
  // "length", "stop_token", "stop_string", "non_finite" (the logits are not
  // finite, so there is no next token) or empty.
  std::string stop_reason;
};

struct RunTimes {  // seconds of device time; shared passes count by their share
                   // of rows
  double prefill = 0;
  double decode = 0;
  double capture = 0;
  double compare = 0;

  RunTimes& operator+=(const RunTimes& other) {
    prefill += other.prefill;
    decode += other.decode;
    capture += other.capture;
    compare += other.compare;
    return *this;
  }
};

// Receives a run's results on the scheduler's thread, in the order that
// AnalyzeEvent promises (analysis.proto). Must not block and must not call back
// into the run.
class RunSink {
 public:
  virtual ~RunSink() = default;
  virtual void OnLayer(LayerFrame frame) = 0;
  virtual void OnApplied(AppliedRule applied) = 0;
  virtual void OnToken(TokenEvent token) = 0;
  virtual void OnComparison(ComparisonResult comparison) = 0;
  virtual void OnLogits(int arm, std::vector<PositionLogits> logits) = 0;
  virtual void OnScore(ScoreResult score) = 0;
  // This is the last call. The status is OK, or why the run ended early.
  virtual void OnFinished(const absl::Status& status,
                          const std::vector<ArmSummary>& arms,
                          const RunTimes& times) = 0;
};

// Ignores what a run sends; its end is for the derived class.
class IgnoringSink : public RunSink {
 public:
  void OnLayer(LayerFrame) override {}
  void OnApplied(AppliedRule) override {}
  void OnToken(TokenEvent) override {}
  void OnComparison(ComparisonResult) override {}
  void OnLogits(int, std::vector<PositionLogits>) override {}
  void OnScore(ScoreResult) override {}
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_RESULTS_H_
