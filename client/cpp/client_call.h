// One call of the client library: its server and context, and how its end is
// reported.
#ifndef QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
#define QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/analysis_client.h"
#include "client/cpp/channels.h"

namespace qk::client {

// Keeps the server's request id and retry delay.
absl::Status ToStatus(const grpc::Status& status);
// A status for which IsIncompleteStream is true.
absl::Status IncompleteStreamError(absl::StatusCode code,
                                   const std::string& why);
// The error of a stream that began and did not finish. A status with a reason
// (cancelled, deadline, refused by the server) keeps its code; a status that
// only says the connection is gone becomes an incomplete stream.
absl::Status BrokenStreamError(const grpc::Status& status, int64_t events);

// Chooses the server, and sets the token, deadline and cancellation of a call.
class ClientCall {
 public:
  // `request_id`: of the request that the call is about. The replica that its
  // id names is chosen, and named to a balancer. Empty: any server may answer.
  ClientCall(Channels* channels, const CallOptions& options,
             const std::string& request_id = "");
  // A call to the server that answered an earlier one.
  ClientCall(std::shared_ptr<const ClientStubs> stubs,
             const CallOptions& options);

  // Whether there is a server. If not, the call must not be made.
  const absl::Status& status() const { return stubs_.status(); }
  const std::shared_ptr<const ClientStubs>& stubs() const { return *stubs_; }
  qkscope::v1::Analysis::Stub* analysis() { return stubs()->analysis.get(); }
  grpc::ClientContext* context() { return &context_; }

  // Calls a method of one of the three services.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    if (!status().ok()) return status();
    Response response;
    const grpc::Status status =
        (StubOf<Stub>()->*method)(&context_, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

 private:
  template <typename Stub>
  Stub* StubOf() const {
    if constexpr (std::is_same_v<Stub, qkscope::v1::Analysis::Stub>) {
      return (*stubs_)->analysis.get();
    } else if constexpr (std::is_same_v<Stub, qkscope::v1::ModelAdmin::Stub>) {
      return (*stubs_)->admin.get();
    } else {
      return (*stubs_)->health.get();
    }
  }

  void Prepare(const CallOptions& options);

  // The call's timeout includes the choice of a server.
  const std::chrono::system_clock::time_point begin_ =
      std::chrono::system_clock::now();
  grpc::ClientContext context_;
  absl::StatusOr<std::shared_ptr<const ClientStubs>> stubs_;
  Cancellation::Registration registration_;  // destroyed before the context
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CLIENT_CALL_H_
