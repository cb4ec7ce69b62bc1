// Compares arms position by position: KL divergence, top-1 flips, and the
// log-probability of the given tokens.
#ifndef QKSCOPE_ENGINE_RUN_COMPARE_H_
#define QKSCOPE_ENGINE_RUN_COMPARE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/model/workspace.h"
#include "engine/run/run.h"
#include "engine/sequence.h"
#include "engine/step_clock.h"

namespace qk {

// Runs one comparison, a tile of rows at a time. Logits exist only within a
// tile, so that other work may use the device in between.
class Comparison {
 public:
  // Compares every arm with arms[baseline]. All arms must have kept the rows of
  // the same `tokens`. Arms and tokens must outlive the comparison.
  Comparison(absl::Span<const int32_t> tokens, std::vector<Sequence*> arms,
             int baseline);

  bool done() const { return next_ == static_cast<int>(tokens_.size()); }
  // Computes the next rows of all arms.
  void RunTile();
  // The device's seconds of the tiles that it has done: of all after Finish.
  double Seconds() { return clock_.Seconds(); }
  // Waits for the device and returns one result per arm, in order. Requires
  // done().
  absl::StatusOr<std::vector<ComparisonResult>> Finish();

 private:
  // An arm's results for some rows, on their way to the host.
  struct Due {
    size_t arm = 0;
    int begin = 0;
    Arrival reduced;  // LogitsRow (rows)
    Arrival kl;       // float (rows); none of the baseline
  };

  // Computes rows [begin, begin + rows) of an arm: logits and reduced rows into
  // work's `tile`.
  void RunArm(size_t arm, int begin, int rows, const Workspace& work, int tile);
  // Stores the results that have arrived.
  void Take();

  const absl::Span<const int32_t> tokens_;
  const std::vector<Sequence*> arms_;
  const int baseline_;
  int next_ = 0;  // the next row
  StepClock clock_;
  std::vector<ComparisonResult> results_;
  std::vector<std::vector<LogitsRow>> rows_;  // (arms, tokens)
  std::deque<Due> due_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_COMPARE_H_
