// Answers a unary call at once.
#ifndef QKSCOPE_SERVER_CALLS_ANSWER_H_
#define QKSCOPE_SERVER_CALLS_ANSWER_H_

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/call_record.h"
#include "server/calls/server_core.h"
#include "server/common/guarded.h"

namespace qk {

// Opens the call, lets `handle(CallRecord*)` fill the response, and finishes
// the call.
template <typename Handle>
grpc::ServerUnaryReactor* Answer(const CallParts& parts,
                                 grpc::CallbackServerContext* context,
                                 const char* method, const Handle& handle) {
  CallRecord call(&parts, context, method);
  const absl::Status status = Guarded(method, [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(call.Open());
    return handle(&call);
  });
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(call.Finish(status));
  return reactor;
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_ANSWER_H_
