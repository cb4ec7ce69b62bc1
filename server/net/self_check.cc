#include "server/net/self_check.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/create_channel_posix.h"
#include "grpcpp/generic/generic_stub.h"

namespace qk {

absl::Status CheckSelf(Acceptor* acceptor, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  QK_ASSIGN_OR_RETURN(const int fd, acceptor->ConnectProbe(timeout));
  grpc::GenericStub stub(grpc::CreateInsecureChannelFromFd("self", fd));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  // An empty HealthCheckRequest asks about the whole server.
  const grpc::Slice empty;
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer response;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(
      &context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (status.ok()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("health call: ", status.error_message()));
}

}  // namespace qk
