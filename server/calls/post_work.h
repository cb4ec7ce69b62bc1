// Hands a call's work on the host to the pool that does it in the users' order.
#ifndef QKSCOPE_SERVER_CALLS_POST_WORK_H_
#define QKSCOPE_SERVER_CALLS_POST_WORK_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/calls/server_core.h"
#include "server/common/byte_pool.h"
#include "server/common/refusal.h"
#include "server/schedule/host_work.h"

namespace qk {

// Whether a call is refused if its user's budget is used up.
enum class Budget { kNeeded, kNotNeeded };

// Calls HostWork::Post for the work that reads `message`. Statuses are the
// client's.
absl::Status PostWork(const CallParts& parts, std::shared_ptr<const User> user,
                      const grpc::ByteBuffer& message, Budget budget,
                      HostWork::Work work);

// Calls PostWork for work that begins a call: `begin` reads the message, and
// `done` receives what it returned or threw, or why it was not called.
absl::Status PostBegin(const CallParts& parts, std::shared_ptr<const User> user,
                       const grpc::ByteBuffer& message, Budget budget,
                       std::function<absl::Status()> begin,
                       std::function<void(const absl::Status&)> done);

// Takes bytes from a pool for the user. Statuses are the client's: `reason` if
// there is no room now, kNeverFits if there never is.
absl::StatusOr<ByteLease> TakeBytes(BytePool* pool, const User& user,
                                    int64_t bytes, Refusal reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_POST_WORK_H_
