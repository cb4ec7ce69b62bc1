#include "server/calls/prepared_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "engine/model/model.h"
#include "server/calls/activation_tap.h"
#include "server/calls/model_info.h"
#include "server/calls/post_work.h"
#include "server/common/delay_point.h"
#include "server/common/refusal.h"
#include "server/common/text.h"
#include "server/schedule/admission.h"

namespace qk {
namespace {

pb::Manifest ManifestOf(const ServerDescription& server,
                        const ConvertedRequest& request) {
  const Model& model = *request.model.model;
  pb::Manifest out;
  out.set_server_version(server.version);
  out.set_model(request.model.name);
  out.set_weights_sha256(model.weights_sha256());
  if (model.tokenizer() != nullptr) {
    out.set_tokenizer_sha256(model.tokenizer()->sha256_hex());
  }
  SetIgnored(model.description().ignored, &out);
  out.set_compute_type(ComputeName(model.compute()));
  out.set_backend(server.backend.name);
  out.set_device(server.backend.device);
  for (const std::string& id :
       KernelIdsOf(server.backend, model.compute(), model.matmuls())) {
    out.add_kernel_ids(id);
  }
  for (const auto& [name, version] : server.backend.library_versions) {
    (*out.mutable_library_versions())[name] = version;
  }
  out.mutable_token_ids()->Assign(request.spec.tokens.begin(),
                                  request.spec.tokens.end());
  *out.mutable_expanded() = request.expanded;
  out.set_client_tag(request.expanded.client_tag());
  return out;
}

// The memory that the request takes while it waits and runs: it is kept twice,
// expanded and as the engine reads it.
absl::StatusOr<ByteLease> TakeMemory(const RunParts& parts, const User& user,
                                     const ConvertedRequest& request) {
  return TakeBytes(parts.requests, user,
                   2 * static_cast<int64_t>(request.expanded.SpaceUsedLong()),
                   Refusal::kQueueFull);
}

}  // namespace

absl::StatusOr<PreparedRun> PrepareRun(const RunParts& parts, const User& user,
                                       ConvertedRequest request,
                                       ActivationSource source,
                                       std::function<void()> wake) {
  auto cost = CostOf(request.spec, request.expanded, *parts.limits);
  if (!cost.ok()) return Refused(Refusal::kResponseSize, cost.status());
  if (cost->buffer_bytes > parts.buffers->limit()) {
    return Refused(
        Refusal::kResponseSize,
        absl::ResourceExhaustedError(absl::StrCat(
            "results may need ", HumanBytes(cost->buffer_bytes),
            " of stream buffers, limit ", HumanBytes(parts.buffers->limit()),
            "; reduce layers/heads/positions")));
  }
  PreparedRun out;
  QK_ASSIGN_OR_RETURN(out.memory, TakeMemory(parts, user, request));
  out.buffer_bytes = cost->buffer_bytes;
  out.queue = std::make_shared<FrameQueue>(
      QueueRoom{parts.buffers, user.alias, cost->buffer_bytes}, parts.buffered,
      std::move(wake));
  out.encoder.manifest = ManifestOf(*parts.server, request);
  out.encoder.estimate =
      EstimatesOf(*cost, static_cast<int>(request.spec.tokens.size()),
                  parts.scheduler->state());
  out.scheduled.prefill_rows = cost->engine.prefill_rows;
  out.scheduled.memory_bytes = cost->memory_bytes();
  out.scheduled.keep_alive = out.queue;
  out.scheduled.room = out.queue.get();
  out.scheduled.least_bytes = cost->engine.stream_bytes;
  out.scheduled.most_bytes = cost->buffer_bytes;
  out.answer = std::make_shared<UsageHold>();
  out.scheduled.answer = out.answer;
  RunSink* sink = out.queue.get();
  if (source == ActivationSource::kAnalyze) {
    out.activations = ActivationRun(parts.activations, request.spec, source);
  } else if (auto tap = ActivationTap::Create(parts, source, out.queue,
                                              &request.spec)) {
    sink = tap.get();
    out.scheduled.keep_alive = std::move(tap);
  }
  QK_ASSIGN_OR_RETURN(out.scheduled.run,
                      Run::Create(std::move(request.spec), sink));
  return out;
}

void DescribeRequest(std::shared_ptr<ScheduledRequest> request, std::string id,
                     EventEncoder::Options* encoder) {
  encoder->request_id = std::move(id);
  // A request with many runs may have started long before this one.
  encoder->queue_seconds = [request = std::move(request),
                            now = MonotonicNow()] {
    return std::max(0.0, absl::ToDoubleSeconds(request->started() - now));
  };
}

absl::Status SubmitRuns(Scheduler* scheduler,
                        const std::shared_ptr<ScheduledRequest>& request,
                        std::vector<ScheduledRun> runs) {
  DelayPoint("enqueue");  // AnalyzeMany: under the call's lock
  const absl::Status status = scheduler->Submit(request, std::move(runs));
  if (absl::IsUnavailable(status)) return Refused(Refusal::kDraining, status);
  return ToClientStatus(status);
}

void CountSent(const RunParts& parts, Priority priority, int64_t bytes,
               CallRecord* call) {
  call->streamed_bytes += bytes;
  parts.metrics->CountStreamedBytes(bytes);
  parts.scheduler->ChargeBytes(*call->user(), priority, bytes);
}

absl::Status ToClientStatus(const absl::Status& end) {
  if (RefusalOf(end).has_value()) return end;
  if (const auto refusal = ScheduleRefusalOf(end)) {
    return Refused(refusal->by == RefusedBy::kBudget ? Refusal::kUserBudget
                                                     : Refusal::kQueueFull,
                   end, refusal->retry);
  }
  if (absl::IsResourceExhausted(end)) return Refused(Refusal::kMemory, end);
  if (absl::IsFailedPrecondition(end)) {
    return Refused(Refusal::kNeverFits,
                   absl::ResourceExhaustedError(end.message()));
  }
  return end;
}

}  // namespace qk
