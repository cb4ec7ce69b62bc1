#include "client/cpp/client_call.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/retry.h"
#include "qkscope/v1/error.pb.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr char kIncompleteUrl[] = "qkscope/incomplete_stream";
constexpr char kRequestInfoUrl[] = "type.googleapis.com/google.rpc.RequestInfo";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// Keeps deadlines within the range of the system clock.
const absl::Duration kLongestTimeout = absl::Hours(24 * 3650);

}  // namespace

// absl and gRPC number their codes alike.
absl::Status ToStatus(const grpc::Status& status) {
  absl::Status out(static_cast<absl::StatusCode>(status.error_code()),
                   status.error_message());
  v1::RpcStatus details;
  if (!details.ParseFromString(status.error_details())) return out;
  for (const google::protobuf::Any& any : details.details()) {
    v1::RetryInfo retry;
    if (any.type_url() == kRetryInfoUrl && retry.ParseFromString(any.value())) {
      SetRetryDelay(absl::Seconds(retry.retry_delay().seconds()) +
                        absl::Nanoseconds(retry.retry_delay().nanos()),
                    &out);
    }
    v1::RequestInfo request;
    if (any.type_url() == kRequestInfoUrl &&
        request.ParseFromString(any.value()) && !request.request_id().empty()) {
      out.SetPayload(kRequestInfoUrl, absl::Cord(request.request_id()));
    }
  }
  return out;
}

absl::Status IncompleteStreamError(absl::StatusCode code,
                                   const std::string& why) {
  absl::Status status(code, absl::StrCat("incomplete stream: ", why));
  status.SetPayload(kIncompleteUrl, absl::Cord("1"));
  return status;
}

absl::Status BrokenStreamError(const grpc::Status& status, int64_t events) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
      return IncompleteStreamError(
          absl::StatusCode::kDataLoss,
          absl::StrCat("it ended after ", events, " events without Finished (",
                       status.ok() ? "status OK" : status.error_message(),
                       ")"));
    default:
      return ToStatus(status);
  }
}

bool IsIncompleteStream(const absl::Status& status) {
  return status.GetPayload(kIncompleteUrl).has_value();
}

std::string RequestIdOf(const absl::Status& status) {
  const auto id = status.GetPayload(kRequestInfoUrl);
  return id.has_value() ? std::string(*id) : "";
}

ClientCall::ClientCall(const ClientStubs& stubs, const CallOptions& options)
    : registration_(options.cancellation, [this] { context_.TryCancel(); }) {
  if (IsSendableToken(stubs.token)) {
    context_.AddMetadata("authorization", absl::StrCat("Bearer ", stubs.token));
  }
  if (options.timeout != absl::InfiniteDuration()) {
    context_.set_deadline(
        std::chrono::system_clock::now() +
        absl::ToChronoMicroseconds(std::min(options.timeout, kLongestTimeout)));
  }
}

}  // namespace qk::client
