// Turns a converted request into a run that can be submitted: checks its size,
// reserves buffers, and makes the queue and the manifest.
#ifndef QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_
#define QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/calls/call_record.h"
#include "server/calls/run_cost.h"
#include "server/calls/server_core.h"
#include "server/events/event_encoder.h"
#include "server/events/frame_queue.h"
#include "server/observe/activation_run.h"

namespace qk {

struct PreparedRun {
  std::shared_ptr<FrameQueue> queue;
  ScheduledRun scheduled;
  int64_t buffer_bytes = 0;  // upper bound on all its events
  // What the answer may still use of the user's budget.
  std::shared_ptr<UsageHold> answer;
  // Of the request itself, as long as somebody keeps it.
  ByteLease memory;
  // The reader of the queue gives it every frame, and the end.
  ActivationRun activations;
  // Incomplete until DescribeRequest is called.
  EventEncoder::Options encoder;
};

// Gives the encoder the facts about its request: the id, and how long the
// request is queued from now on.
void DescribeRequest(std::shared_ptr<ScheduledRequest> request, std::string id,
                     EventEncoder::Options* encoder);

// Fails with RESOURCE_EXHAUSTED if the run exceeds the limit on responses or on
// buffers. The queue calls `wake` when it has something to read. `source`: the
// RPC, for the metrics.
absl::StatusOr<PreparedRun> PrepareRun(const RunParts& parts, const User& user,
                                       ConvertedRequest request,
                                       ActivationSource source,
                                       std::function<void()> wake);

// Calls Scheduler::Submit, and attaches the reason of a refusal for the
// metrics.
absl::Status SubmitRuns(Scheduler* scheduler,
                        const std::shared_ptr<ScheduledRequest>& request,
                        std::vector<ScheduledRun> runs);

// Counts bytes of a stream that were handed to gRPC: in the metrics, in the
// call's log line, and against the user's budget.
void CountSent(const RunParts& parts, Priority priority, int64_t bytes,
               CallRecord* call);

// Converts the status that a run ended with to the one that the client gets. If
// memory, the queue or a budget was the problem, the status is
// RESOURCE_EXHAUSTED with the refusal's reason.
absl::Status ToClientStatus(const absl::Status& end);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_PREPARED_RUN_H_
