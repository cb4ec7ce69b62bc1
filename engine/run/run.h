// A Run is one request on the device: its arms, as sequences that a scheduler
// puts into ragged batches, and what comes out of them.
//
// Life, all on the device's scheduler thread but where said otherwise:
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

#endif  // QKSCOPE_ENGINE_RUN_RUN_H_
