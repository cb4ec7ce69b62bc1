#include "client/cpp/client_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/retry.h"
#include "engine/base/request_id.h"
#include "qkscope/v1/error.pb.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr char kIncompleteUrl[] = "qkscope/incomplete_stream";
constexpr char kRequestInfoUrl[] = "type.googleapis.com/google.rpc.RequestInfo";
// Names the replica that has the result. A balancer cannot read messages.
constexpr char kReplicaKey[] = "x-qkscope-replica";
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

ClientCall::ClientCall(Channels* channels, const CallOptions& options,
                       const std::string& request_id)
    : stubs_(channels->Choose(ReplicaOf(request_id), options)),
      registration_(options.cancellation, [this] { context_.TryCancel(); }) {
  const absl::string_view replica = ReplicaOf(request_id);
  if (!replica.empty()) {
    context_.AddMetadata(kReplicaKey, std::string(replica));
  }
  Prepare(options);
}

ClientCall::ClientCall(std::shared_ptr<const ClientStubs> stubs,
                       const CallOptions& options)
    : stubs_(std::move(stubs)),
      registration_(options.cancellation, [this] { context_.TryCancel(); }) {
  Prepare(options);
}

void ClientCall::Prepare(const CallOptions& options) {
  if (stubs_.ok() && IsSendableToken((*stubs_)->token)) {
    context_.AddMetadata("authorization",
                         absl::StrCat("Bearer ", (*stubs_)->token));
  }
  if (options.timeout != absl::InfiniteDuration()) {
    context_.set_deadline(begin_ + absl::ToChronoMicroseconds(std::min(
                                       options.timeout, kLongestTimeout)));
  }
}

}  // namespace qk::client
