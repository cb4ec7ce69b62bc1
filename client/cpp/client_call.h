// One call of the client library: its context, and how its end is told.
#ifndef QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
#define QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/analysis_client.h"
#include "client/cpp/health.grpc.pb.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk::client {

struct ClientStubs {
  std::string token;
  std::unique_ptr<qkscope::v1::Analysis::Stub> analysis;
  std::unique_ptr<qkscope::v1::ModelAdmin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// With the server's request id and retry delay.
absl::Status ToStatus(const grpc::Status& status);
absl::Status Incomplete(absl::StatusCode code, const std::string& why);
// How a stream that has begun and did not finish is reported. A status that
// tells why (cancelled, deadline, refused by the server) keeps its code; one
// that only says the connection is gone becomes an incomplete stream.
absl::Status BrokenOff(const grpc::Status& status, int64_t events);

// Has token, deadline and cancellation.
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
  Cancellation::Registration registration_;  // ends before the context
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
