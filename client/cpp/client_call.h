// One call of the client library: its context, and how its end is reported.
#ifndef QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
#define QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/analysis_client.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk::client {

struct ClientStubs {
  std::string token;
  std::unique_ptr<qkscope::v1::Analysis::Stub> analysis;
  std::unique_ptr<qkscope::v1::ModelAdmin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// Keeps the server's request id and retry delay.
absl::Status ToStatus(const grpc::Status& status);
// A status for which IsIncompleteStream is true.
absl::Status IncompleteStreamError(absl::StatusCode code,
                                   const std::string& why);
// The error of a stream that began and did not finish. A status with a reason
// (cancelled, deadline, refused by the server) keeps its code; a status that
// only says the connection is gone becomes an incomplete stream.
absl::Status BrokenStreamError(const grpc::Status& status, int64_t events);

// Sets the token, deadline and cancellation of a call.
class ClientCall {
 public:
  ClientCall(const ClientStubs& stubs, const CallOptions& options);

  grpc::ClientContext* context() { return &context_; }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(
      Stub* stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    Response response;
    const grpc::Status status = (stub->*method)(&context_, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

 private:
  grpc::ClientContext context_;
  Cancellation::Registration registration_;  // destroyed before the context
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
