#include "server/call_record.h"

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "grpc/support/time.h"
#include "server/grpc_status.h"
#include "server/refusal.h"

namespace qk {
namespace {

// A deadline travels as a rounded duration, and may seem later than it is.
constexpr absl::Duration kRounding = absl::Seconds(1);

std::string RandomId() {
  absl::BitGen random;
  return absl::StrFormat("%016x", absl::Uniform<uint64_t>(random));
}

}  // namespace

CallRecord::CallRecord(const ServerCore* core, const char* method)
    : core_(core), method_(method), id_(RandomId()), start_(absl::Now()) {
  core_->calls->CallStarted();
  core_->metrics->RpcStarted(method_);
}

CallRecord::~CallRecord() {
  if (!finished_) Finish(absl::InternalError("the call was lost"));
  core_->calls->CallEnded();
}

grpc::Status CallRecord::Finish(const absl::Status& status) {
  ConvertedStatus converted = ToGrpcStatus(status);
  if (finished_) return converted.status;
  finished_ = true;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  core_->metrics->RpcHandled(method_, converted.status.error_code(), seconds);
  if (const auto reason = RefusalOf(status)) {
    core_->metrics->CountRefusal(*reason);
  }
  core_->metrics->Streamed(streamed_bytes);
  core_->metrics->Tokens(model, prompt_tokens, generated_tokens);
  const bool ours = !converted.reference.empty();
  // Messages of bad requests echo what was sent, so they stay out of the log.
  const bool echoes = absl::IsInvalidArgument(status) ||
                      absl::IsOutOfRange(status) || absl::IsNotFound(status);
  core_->log->Write(
      ours ? LogLevel::kError : LogLevel::kInfo, "rpc",
      {{"id", id_},
       {"method", std::string(method_)},
       {"model", model},
       {"code", std::string(CodeName(converted.status.error_code()))},
       {"reason", ours     ? converted.detail
                  : echoes ? "bad request"
                           : converted.status.error_message()},
       {"ref", converted.reference},
       {"prompt_tokens", prompt_tokens},
       {"generated_tokens", generated_tokens},
       {"arms", arms},
       {"bytes", streamed_bytes},
       {"queue_ms", queue_seconds * 1e3},
       {"total_ms", seconds * 1e3}});
  return converted.status;
}

absl::StatusOr<absl::Time> CallDeadline(
    const grpc::CallbackServerContext& context, const Limits& limits) {
  const absl::Time now = absl::Now();
  const absl::Duration longest = absl::Milliseconds(limits.max_deadline_ms);
  const gpr_timespec raw = context.raw_deadline();
  if (gpr_time_cmp(raw, gpr_inf_future(raw.clock_type)) == 0) {
    return now + longest;
  }
  const absl::Time deadline = absl::FromChrono(context.deadline());
  if (deadline <= now) {
    return absl::DeadlineExceededError("deadline exceeded before execution");
  }
  if (deadline > now + longest + kRounding) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "deadline: %d s from now, limit %d s",
        absl::ToInt64Seconds(deadline - now), absl::ToInt64Seconds(longest)));
  }
  return deadline;
}

absl::Status CancelledReason(const grpc::CallbackServerContext& context) {
  if (absl::FromChrono(context.deadline()) <= absl::Now()) {
    return absl::DeadlineExceededError("deadline exceeded");
  }
  return absl::CancelledError("cancelled by the client");
}

CancelReason CancelReasonOf(const absl::Status& reason) {
  return absl::IsDeadlineExceeded(reason) ? CancelReason::kDeadline
                                          : CancelReason::kClient;
}

}  // namespace qk
