// Hands a call's work on the host to the pool that does it in the users' order.
#ifndef QKSCOPE_SERVER_CALLS_POST_WORK_H_
#define QKSCOPE_SERVER_CALLS_POST_WORK_H_

#include <memory>

#include "absl/status/status.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/calls/server_core.h"
#include "server/schedule/host_work.h"

namespace qk {

// Whether a call is refused if its user's budget is used up.
enum class Budget { kNeeded, kNotNeeded };

// Calls HostWork::Post for the work that reads `message`. Statuses are the
// client's.
absl::Status PostWork(const CallParts& parts, std::shared_ptr<const User> user,
                      const grpc::ByteBuffer& message, Budget budget,
                      HostWork::Work work);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_POST_WORK_H_
