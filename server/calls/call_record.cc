#include "server/calls/call_record.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "engine/base/request_id.h"
#include "grpc/grpc_security_constants.h"
#include "grpc/support/time.h"
#include "grpcpp/security/auth_context.h"
#include "server/common/delay_point.h"
#include "server/common/grpc_status.h"
#include "server/common/refusal.h"

namespace qk {
namespace {

// gRPC sends a deadline as a rounded duration, so it may arrive later than the
// client set it.
constexpr absl::Duration kRounding = absl::Seconds(1);
// Some clients write a timeout of years where they mean none. One that is
// longer than this, and than the server's limit, counts as none.
constexpr absl::Duration kNobodyWaits = absl::Hours(24);
constexpr char kRequestIdKey[] = "x-qkscope-request-id";
constexpr size_t kMaxLoggedPrompt = 4096;

std::string RandomId(const std::string& replica) {
  absl::BitGen random;
  return MakeRequestId(absl::Uniform<uint64_t>(random), replica);
}

std::vector<absl::string_view> Headers(
    const grpc::CallbackServerContext& context, const char* key) {
  std::vector<absl::string_view> out;
  const auto [begin, end] = context.client_metadata().equal_range(key);
  for (auto it = begin; it != end; ++it) {
    out.emplace_back(it->second.data(), it->second.size());
  }
  return out;
}

std::optional<TraceParent> TraceOf(const grpc::CallbackServerContext& context) {
  const std::vector<absl::string_view> headers =
      Headers(context, "traceparent");
  return headers.size() == 1 ? ParseTraceParent(headers[0]) : std::nullopt;
}

// The common name of a client certificate that TLS has verified. Headers are
// not trusted for this.
std::optional<std::string> VerifiedSubject(
    const grpc::CallbackServerContext& context) {
  const auto auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) return std::nullopt;
  const auto names = auth->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  if (names.size() != 1) return std::nullopt;
  return std::string(names[0].data(), names[0].size());
}

// Time until the call's deadline; infinite if it has none.
absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const gpr_timespec raw = context.raw_deadline();
  if (gpr_time_cmp(raw, gpr_inf_future(raw.clock_type)) == 0) {
    return absl::InfiniteDuration();
  }
  const gpr_timespec left = gpr_time_sub(raw, gpr_now(raw.clock_type));
  return absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

void AppendBounded(absl::string_view text, std::string* out) {
  if (!out->empty()) *out += '\n';
  const size_t room =
      kMaxLoggedPrompt - std::min(kMaxLoggedPrompt, out->size());
  out->append(text.data(), std::min(room, text.size()));
}

}  // namespace

CallRecord::CallRecord(const CallParts* parts,
                       grpc::CallbackServerContext* context, const char* method)
    : parts_(parts),
      context_(context),
      method_(method),
      id_(RandomId(parts->replica)),
      start_(MonotonicNow()),
      trace_(TraceOf(*context)) {
  context_->AddTrailingMetadata(kRequestIdKey, id_);
  parts_->calls->CallStarted();
  parts_->metrics->RpcStarted(method_);
}

CallRecord::~CallRecord() {
  if (!finished_) {
    Finish(absl::InternalError("the call ended without a status"));
  }
  parts_->calls->CallEnded();
}

absl::Status CallRecord::Open(DeadlineRule rule) {
  DelayPoint("accept.before");
  QK_RETURN_IF_ERROR(parts_->calls->CheckOpen());
  QK_RETURN_IF_ERROR(Authenticate());
  QK_RETURN_IF_ERROR(SetDeadline(rule));
  DelayPoint("accept.after");
  return absl::OkStatus();
}

absl::Status CallRecord::Authenticate() {
  QK_ASSIGN_OR_RETURN(user_,
                      parts_->identity->Authenticate(CredentialsOf(*context_)));
  if (RequiredRole(method_) == UserRole::kOperator &&
      user_->role != UserRole::kOperator) {
    return absl::PermissionDeniedError(
        absl::StrFormat("token may not call %s", method_));
  }
  return absl::OkStatus();
}

absl::Status CallRecord::SetDeadline(DeadlineRule rule) {
  const absl::Duration longest =
      absl::Milliseconds(parts_->limits->max_deadline_ms);
  absl::Duration left = TimeLeft(*context_);
  if (left <= absl::ZeroDuration()) {
    return absl::DeadlineExceededError("deadline exceeded before execution");
  }
  if (rule == DeadlineRule::kServer) {
    if (left > std::max(longest, kNobodyWaits)) left = longest;
    if (left > longest + kRounding) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "deadline: %d s from now, limit %d s", absl::ToInt64Seconds(left),
          absl::ToInt64Seconds(longest)));
    }
  }
  deadline_ = MonotonicNow() + left;
  return absl::OkStatus();
}

const std::shared_ptr<const User>& CallRecord::user() const {
  QK_CHECK(user_ != nullptr);
  return user_;
}

ConvertContext CallRecord::convert_context() const {
  return {[registry = parts_->registry, user = user()](
              const std::string& name) { return registry->Find(name, *user); },
          *parts_->limits};
}

void CallRecord::KeepPrompt(const pb::Input& input) {
  if (!parts_->log_prompts || prompt_.size() >= kMaxLoggedPrompt) return;
  AppendBounded(input.text(), &prompt_);
  for (const pb::ChatMessage& message : input.chat().messages()) {
    AppendBounded(message.content(), &prompt_);
  }
}

std::shared_ptr<ScheduledRequest> CallRecord::MakeRequest(
    Priority priority, std::function<void(int)> on_position) const {
  RequestInfo info;
  info.id = id_;
  info.method = method_;
  info.model = model;
  info.user = user();
  info.priority = priority;
  info.arms = static_cast<int>(arms);
  info.prompt_tokens = prompt_tokens;
  return std::make_shared<ScheduledRequest>(std::move(info), deadline_,
                                            std::move(on_position));
}

void CallRecord::SetPhases(const ScheduledRequest& request,
                           double stream_seconds) {
  phases_ = PhasesOf(request, start_, stream_seconds);
}

grpc::Status CallRecord::Finish(const absl::Status& status) {
  ConvertedStatus converted = ToGrpcStatus(
      status.ok() && user_ == nullptr
          ? absl::InternalError("the call ended with OK but was never opened")
          : status,
      id_);
  if (finished_) return converted.status;
  finished_ = true;
  const double seconds = absl::ToDoubleSeconds(MonotonicNow() - start_);
  parts_->metrics->RpcHandled(method_, converted.status.error_code(), seconds);
  if (user_ != nullptr) parts_->metrics->CountCall(user_->alias);
  if (const auto reason = RefusalOf(status)) {
    parts_->metrics->CountRefusal(*reason);
  }
  if (const auto reason = CancelReasonOf(status)) {
    parts_->metrics->CountCancelled(*reason);
  }
  if (phases_.has_value()) {
    parts_->metrics->ObservePhases(*phases_);
    parts_->metrics->CountTokens(model, prompt_tokens, generated_tokens);
  }
  WriteLog(status, converted, seconds);
  return converted.status;
}

void CallRecord::WriteLog(const absl::Status& status,
                          const ConvertedStatus& converted, double seconds) {
  const bool ours = !converted.reference.empty();
  // Messages about bad requests quote the request, so they are not logged.
  const bool echoes = absl::IsInvalidArgument(status) ||
                      absl::IsOutOfRange(status) || absl::IsNotFound(status);
  std::vector<LogField> fields = {
      {"id", id_},
      {"alias", user_ == nullptr ? std::string() : user_->alias},
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
      {"queue_ms", phases_.has_value() ? phases_->queue * 1e3 : 0.0},
      {"total_ms", seconds * 1e3}};
  if (phases_.has_value()) AppendTimes(*phases_, &fields);
  AppendTrace(trace_, &fields);
  if (!prompt_.empty()) fields.push_back({"prompt", prompt_});
  parts_->log->Write(ours ? LogLevel::kError : LogLevel::kInfo, "rpc", fields);
}

std::optional<PhaseSeconds> PhasesOf(const ScheduledRequest& request,
                                     absl::Time start, double stream_seconds) {
  const absl::Time started = request.started();
  if (started == absl::InfiniteFuture()) return std::nullopt;
  return PhaseSeconds{absl::ToDoubleSeconds(started - start), request.times(),
                      stream_seconds};
}

void AppendTimes(const PhaseSeconds& phases, std::vector<LogField>* fields) {
  const std::pair<const char*, double> times[] = {
      {"prefill_ms", phases.device.prefill},
      {"decode_ms", phases.device.decode},
      {"capture_ms", phases.device.capture},
      {"compare_ms", phases.device.compare},
      {"stream_ms", phases.stream},
  };
  for (const auto& [key, seconds] : times) {
    LogField& field = fields->emplace_back();
    field.key = key;
    field.value = seconds * 1e3;
  }
}

void AppendTrace(const std::optional<TraceParent>& trace,
                 std::vector<LogField>* fields) {
  if (!trace.has_value()) return;
  const LogField all[] = {{"trace_id", trace->trace_id},
                          {"parent_id", trace->parent_id},
                          {"sampled", trace->sampled}};
  fields->insert(fields->end(), std::begin(all), std::end(all));
}

Credentials CredentialsOf(const grpc::CallbackServerContext& context) {
  return {Headers(context, "authorization"), VerifiedSubject(context)};
}

UserRole RequiredRole(const std::string& method) {
  const auto* analysis =
      pb::AnalyzeRequest::descriptor()->file()->FindServiceByName("Analysis");
  return analysis->FindMethodByName(method) == nullptr ? UserRole::kOperator
                                                       : UserRole::kUser;
}

absl::Status CancelledReason(const grpc::CallbackServerContext& context) {
  if (TimeLeft(context) <= absl::ZeroDuration()) {
    return absl::DeadlineExceededError("deadline exceeded");
  }
  return absl::CancelledError("cancelled by the client");
}

}  // namespace qk
