// One arm of a run: what it asks of each pass, and what it makes of the
// results. All calls are on the device's scheduler thread.
#ifndef QKSCOPE_ENGINE_RUN_RUN_ARM_H_
#define QKSCOPE_ENGINE_RUN_RUN_ARM_H_

#include <memory>

#include "absl/status/status.h"
#include "engine/run/generate.h"
#include "engine/sequence.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"

namespace qk {

class RunArm {
 public:
  // `spec` and `sink` must outlive the arm.
  RunArm(const RunSpec& spec, RunSink* sink,
         std::unique_ptr<Sequence> sequence);

  // Takes the sequence's memory, and asks for the prompt's logits. Errors as
  // Run::Reserve.
  absl::Status Reserve();
  // Sends the scores, the logits or the token of the pass that has just run,
  // and asks for what the next one must compute.
  void AfterPass();

  Sequence& sequence() const { return *sequence_; }
  bool prefilled() const { return prefilled_; }
  bool done() const { return done_; }
  // The error of the reports that are sent once decode is done.
  const absl::Status& status() const { return status_; }
  const ArmSummary& summary() const { return summary_; }

 private:
  void RequestLogits();
  void AfterPrefill();
  void FollowContinuation();
  void TakeScore();
  void SendLogits();
  void TakeToken();
  TokenEvent ChooseToken(const LogitsResult& result) const;
  void Stop(const char* reason);

  const RunSpec& spec_;
  RunSink* sink_;
  std::unique_ptr<Sequence> sequence_;
  TextStream text_;
  ArmSummary summary_;
  ScoreResult score_;         // of the rows so far
  int score_requests_ = 0;    // of the next pass
  bool recomputing_ = false;  // the next pass only repeats rows
  bool prefilled_ = false;
  bool done_ = false;
  absl::Status status_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_RUN_ARM_H_
