// From a checked request to a run that can be submitted: estimate, admission,
// queue, manifest.
#ifndef QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_
#define QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/calls/run_cost.h"
#include "server/calls/server_core.h"
#include "server/events/event_encoder.h"
#include "server/events/frame_queue.h"

namespace qk {

struct PreparedRun {
  std::shared_ptr<FrameQueue> queue;
  ScheduledRun scheduled;
  int64_t buffer_bytes = 0;  // of all its events, at most
  // Complete but for what AddRequestInfo adds.
  EventEncoder::Options encoder;
};

// Adds the request's facts to the encoder's options: its id, and how long it
// waits from now on.
void AddRequestInfo(std::shared_ptr<ScheduledRequest> request, std::string id,
                    EventEncoder::Options* encoder);

// RESOURCE_EXHAUSTED: over the response's or the buffers' limit. `wake`: of
// the queue.
absl::StatusOr<PreparedRun> PrepareRun(const RunParts& parts,
                                       ConvertedRequest request,
                                       std::function<void()> wake);

// As Scheduler::Submit; errors carry their reason.
absl::Status SubmitRuns(Scheduler* scheduler,
                        const std::shared_ptr<ScheduledRequest>& request,
                        std::vector<ScheduledRun> runs);

// How a run's end is told: memory that was not there carries its reason.
absl::Status EndStatus(const absl::Status& end);

// Statistics of the text's layers in undisrupted prompts go to the metrics.
void CountStatistics(const pb::AnalyzeRequest& expanded,
                     const LayerFrame& frame, Metrics* metrics);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_
