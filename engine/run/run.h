// A Run is one request on the device. Its arms are sequences that a scheduler
// puts into ragged batches; their results go to a sink.
//
// These calls follow each other, all on the device's scheduler thread unless a
// comment says otherwise:
//   Create -> Reserve -> { AppendReady -> (a pass) -> AfterPass
//                          -> CompareTile* }* -> finished.
#ifndef QKSCOPE_ENGINE_RUN_RUN_H_
#define QKSCOPE_ENGINE_RUN_RUN_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"

namespace qk {

class Sequence;

// What a run will need, computed from its spec alone.
struct RunEstimate {
  int64_t stream_bytes = 0;  // at most; payloads of all Layer frames
  int64_t logits_bytes = 0;  // the PositionLogits of all arms
  int64_t kv_pages = 0;      // over all arms
  // Pages, rows, capture and logits buffers, images, and what is sent: the two
  // numbers above.
  int64_t peak_extra_bytes = 0;
  int64_t prefill_rows = 0;  // over all arms and towers
};

class Run {
 public:
  // RESOURCE_EXHAUSTED: a size overflows int64. CheckImages must have accepted
  // the images.
  static absl::StatusOr<RunEstimate> Estimate(const RunSpec& spec);

  // Any thread. `sink` must outlive the run.
  static absl::StatusOr<std::unique_ptr<Run>> Create(RunSpec spec,
                                                     RunSink* sink);
  virtual ~Run() = default;

  // Takes all the memory that the run will use. RESOURCE_EXHAUSTED: too little
  // is free now; call again once other runs have ended. FAILED_PRECONDITION:
  // the run could never fit.
  virtual absl::Status Reserve() = 0;

  // The model of the run's next sequences; nullptr if the run is finished.
  virtual const Model* next_model() const = 0;
  // Appends the sequences of `model` that want rows in the next pass.
  virtual void AppendReady(const Model* model, std::vector<Sequence*>* out) = 0;
  // Samples, starts the comparison and sends events after a pass in which the
  // run's sequences `ran` had rows. `status`: the pass's. `seconds`: this run's
  // share of its time.
  virtual void AfterPass(absl::Span<Sequence* const> ran,
                         const absl::Status& status, double seconds) = 0;
  virtual bool finished() const = 0;

  // A comparison runs between passes, a tile at a time. During a comparison no
  // sequence is ready.
  virtual bool comparing() const = 0;
  virtual void CompareTile() = 0;
  // The device's seconds of the comparison so far.
  virtual double compare_seconds() = 0;

  // Any thread. The times so far: of passes that have ended, and, once the run
  // has ended, of capture and of the comparison; then they are OnFinished's.
  virtual RunTimes times() const = 0;

  // Any thread, any time. The run ends between two steps.
  virtual void Cancel(absl::Status reason) = 0;
  virtual bool cancelled() const = 0;
  // Ends a cancelled run: calls OnFinished with the reason. Does nothing if the
  // run is finished or not cancelled.
  virtual void FinishCancelled() = 0;

  virtual const RunSpec& spec() const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_RUN_H_
