// The only place where an absl::Status becomes a grpc::Status.
#ifndef QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_
#define QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace qk {

struct ConvertedStatus {
  grpc::Status status;
  // Set for internal errors, for the log only: the reference in `status` and
  // the original message.
  std::string reference;
  std::string detail;
};

// Shortens paths in messages to file names, and replaces the message of an
// internal error by a reference. The details are a serialised google.rpc.Status
// with RequestInfo (`request_id`) and, if a delay is attached, RetryInfo.
ConvertedStatus ToGrpcStatus(const absl::Status& status,
                             const std::string& request_id);

// The code's name, such as "UNAVAILABLE", for logs and labels.
const char* CodeName(grpc::StatusCode code);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_GRPC_STATUS_H_
