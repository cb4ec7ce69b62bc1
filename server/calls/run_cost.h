// Estimates what a request will cost before anything is allocated.
#ifndef QKSCOPE_SERVER_CALLS_RUN_COST_H_
#define QKSCOPE_SERVER_CALLS_RUN_COST_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/run/run.h"
#include "engine/types/spec.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/common/limits.h"
#include "server/common/pb.h"
#include "server/schedule/listing.h"

namespace qk {

struct RunCost {
  RunEstimate engine;
  // Upper bound on the memory of all events, payloads included, while they
  // wait for the reader.
  int64_t buffer_bytes = 0;

  // Of all that the run holds. The engine's number includes the payloads and
  // the logits, which are in the buffers, too.
  int64_t memory_bytes() const {
    return engine.peak_extra_bytes + buffer_bytes - engine.stream_bytes -
           engine.logits_bytes;
  }
};

// Fails with RESOURCE_EXHAUSTED if the response is too large (`capture needs
// 9.1 GiB, limit 2 GiB; reduce layers/heads/positions`), or if the summary does
// not fit into one message.
absl::StatusOr<RunCost> CostOf(const RunSpec& spec,
                               const pb::AnalyzeRequest& expanded,
                               const Limits& limits);

pb::Estimates EstimatesOf(const RunCost& cost, int prompt_tokens,
                          const SchedulerState& state);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RUN_COST_H_
