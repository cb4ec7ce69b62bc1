// The one place where absl::Status becomes grpc::Status.
#ifndef QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_
#define QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace qk {

// Says when to try again. Kept through the conversion as google.rpc.RetryInfo.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

struct ConvertedStatus {
  grpc::Status status;
  // Of an internal error, for the log only: what `status` refers to.
  std::string reference;
  std::string detail;
};

// Paths in messages are cut to file names. An internal error tells the client
// no more than a reference. Details are a serialised google.rpc.Status with
// RequestInfo (`request_id`) and, where there is one, RetryInfo.
ConvertedStatus ToGrpcStatus(const absl::Status& status,
                             const std::string& request_id);

// "UNAVAILABLE", for logs and labels.
const char* CodeName(grpc::StatusCode code);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_
