#include "server/calls/kept_run.h"

#include <utility>

#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "server/common/grpc_status.h"
#include "server/common/guarded.h"
#include "server/common/refusal.h"

namespace qk {
namespace {

// Bytes that a file needs for records other than events.
constexpr int64_t kFileOverhead = 4096;

::qkscope::v1::SpoolHeader HeaderOf(const KeptCall& call,
                                    const ConvertedRequest& request) {
  ::qkscope::v1::SpoolHeader header;
  header.set_request_id(call.request->info().id);
  header.set_user(call.user->alias);
  header.set_method("Analyze");
  header.set_model(request.model.name);
  header.set_arms(static_cast<int>(request.spec.arms.size()));
  header.set_prompt_tokens(static_cast<int64_t>(request.spec.tokens.size()));
  header.set_created_unix_ms(
      absl::ToUnixMillis(absl::Now() - (MonotonicNow() - call.start)));
  return header;
}

}  // namespace

absl::StatusOr<std::shared_ptr<KeptResult>> KeptRun::Start(
    const ServerCore& core, KeptCall call, ConvertedRequest request,
    std::shared_ptr<UsageHold> answer) {
  if (core.results.store == nullptr) {
    return absl::FailedPreconditionError(
        "detach: the server keeps no results (spool in the config)");
  }
  std::shared_ptr<KeptRun> run(new KeptRun(core));
  core.call.calls->CallStarted();  // a drain waits until the run has ended
  run->id_ = call.request->info().id;
  run->user_ = call.user;
  run->start_ = call.start;
  run->trace_ = call.trace;
  const ::qkscope::v1::SpoolHeader header = HeaderOf(call, request);
  // The queue and the run keep each other alive until Finish.
  const auto wake = [executor = core.results.executor, run] {
    executor->Post([run] { run->Drain(); });
  };
  QK_ASSIGN_OR_RETURN(PreparedRun prepared,
                      PrepareRun(core.run, *call.user, std::move(request),
                                 ActivationSource::kAnalyze, wake));
  auto result = core.results.store->Create(
      header, prepared.buffer_bytes + kFileOverhead, call.user->budget);
  if (absl::IsResourceExhausted(result.status())) {
    return Refused(Refusal::kKeptResults, result.status());
  }
  if (!result.ok()) return result.status();
  run->result_ = *result;
  run->memory_ = std::move(prepared.memory);
  prepared.scheduled.answer = std::move(answer);
  run->request_ = std::move(call.request);
  DescribeRequest(run->request_, run->id_, &prepared.encoder);
  {
    MutexLock lock(&run->mutex_);
    run->queue_ = prepared.queue;
    run->encoder_.emplace(std::move(prepared.encoder));
    run->activations_ = std::move(prepared.activations);
  }
  std::vector<ScheduledRun> runs;
  runs.push_back(std::move(prepared.scheduled));
  const absl::Status status =
      SubmitRuns(core.run.scheduler, run->request_, std::move(runs));
  if (!status.ok()) {
    MutexLock lock(&run->mutex_);
    run->queue_.reset();
    core.results.store->Drop(run->id_);
    return status;
  }
  wake();
  return *result;
}

KeptRun::~KeptRun() { call_parts_->calls->CallEnded(); }

void KeptRun::Drain() {
  MutexLock lock(&mutex_);
  const absl::Status thrown =
      Guarded("kept run",
              [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { KeepEvents(); });
  if (thrown.ok() || finished_) return;
  request_->Cancel(thrown);
  Finish(thrown);
}

void KeptRun::KeepEvents() {
  pb::AnalyzeEvent event;
  while (!finished_) {
    while (!finished_ && encoder_->Next(&event)) {
      if (event.has_accepted()) continue;
      const std::string bytes = event.SerializeAsString();
      const absl::Status written = result_->Append(bytes);
      queue_->Release(static_cast<int64_t>(bytes.size()));
      if (written.ok()) continue;
      request_->Cancel(written);
      Finish(written);
    }
    if (encoder_->done()) Finish(absl::OkStatus());
    if (finished_) return;
    std::optional<StreamItem> item = queue_->Pop();
    if (!item.has_value()) return;
    if (const auto* end = std::get_if<RunEnd>(&*item)) {
      if (!end->status.ok()) {
        Finish(ToClientStatus(end->status));
        return;
      }
      activations_.Finish();
    }
    if (const auto* frame = std::get_if<LayerFrame>(&*item)) {
      activations_.Add(*frame);
    }
    encoder_->Feed(*std::move(item));
  }
}

void KeptRun::Finish(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  queue_->Discard();
  queue_.reset();
  store_->Finish(result_.get(), status);
  const ConvertedStatus converted = ToGrpcStatus(status, id_);
  const auto phases = PhasesOf(*request_, start_, encoder_->stream_seconds());
  std::vector<LogField> fields = {
      {"id", id_},
      {"alias", user_->alias},
      {"code", std::string(CodeName(converted.status.error_code()))},
      {"device_ms", request_->device_seconds() * 1e3},
      {"bytes", encoder_->streamed_bytes()},
      {"queue_ms", phases.has_value() ? phases->queue * 1e3 : 0.0},
      {"total_ms", absl::ToDoubleMilliseconds(MonotonicNow() - start_)}};
  if (phases.has_value()) {
    call_parts_->metrics->ObservePhases(*phases);
    call_parts_->metrics->CountTokens(request_->info().model,
                                      request_->info().prompt_tokens,
                                      encoder_->generated_tokens());
    AppendTimes(*phases, &fields);
  }
  AppendTrace(trace_, &fields);
  call_parts_->log->Info("kept_run_ended", fields);
}

}  // namespace qk
