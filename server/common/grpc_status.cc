#include "server/common/grpc_status.h"

#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "qkscope/v1/error.pb.h"
#include "server/common/retry_after.h"
#include "server/common/text.h"

namespace qk {
namespace {

constexpr char kRequestUrl[] = "type.googleapis.com/google.rpc.RequestInfo";

// Enough for any of our messages, and well below the 8 KiB of metadata that
// clients accept.
constexpr size_t kMaxMessage = 2048;

std::string RandomReference() {
  absl::BitGen random;
  return absl::StrFormat("%08x", absl::Uniform<uint32_t>(random));
}

std::string Details(const absl::Status& status, const grpc::Status& sent,
                    const std::string& request_id) {
  ::qkscope::v1::RpcStatus out;
  out.set_code(static_cast<int>(sent.error_code()));
  out.set_message(sent.error_message());
  const auto retry = status.GetPayload(kRetryInfoUrl);
  if (retry.has_value()) {
    google::protobuf::Any* any = out.add_details();
    any->set_type_url(kRetryInfoUrl);
    any->set_value(std::string(*retry));
  }
  ::qkscope::v1::RequestInfo request;
  request.set_request_id(request_id);
  google::protobuf::Any* any = out.add_details();
  any->set_type_url(kRequestUrl);
  any->set_value(request.SerializeAsString());
  return out.SerializeAsString();
}

}  // namespace

ConvertedStatus ToGrpcStatus(const absl::Status& status,
                             const std::string& request_id) {
  if (status.ok()) return {};
  ConvertedStatus out;
  const bool internal = absl::IsInternal(status) || absl::IsUnknown(status);
  if (internal) {
    out.reference = RandomReference();
    out.detail = std::string(status.message());
    out.status =
        grpc::Status(grpc::StatusCode::INTERNAL,
                     absl::StrCat("internal error (ref ", out.reference, ")"));
  } else {
    std::string message = StripPaths(status.message());
    if (message.size() > kMaxMessage) message.resize(kMaxMessage);
    // absl and gRPC number their codes alike.
    out.status =
        grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
  }
  out.status = grpc::Status(out.status.error_code(), out.status.error_message(),
                            Details(status, out.status, request_id));
  return out;
}

const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",
      "CANCELLED",
      "UNKNOWN",
      "INVALID_ARGUMENT",
      "DEADLINE_EXCEEDED",
      "NOT_FOUND",
      "ALREADY_EXISTS",
      "PERMISSION_DENIED",
      "RESOURCE_EXHAUSTED",
      "FAILED_PRECONDITION",
      "ABORTED",
      "OUT_OF_RANGE",
      "UNIMPLEMENTED",
      "INTERNAL",
      "UNAVAILABLE",
      "DATA_LOSS",
      "UNAUTHENTICATED",
  };
  const size_t index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

}  // namespace qk
