#include "server/calls/post_work.h"

#include <utility>

#include "server/calls/prepared_run.h"

namespace qk {

absl::Status PostWork(const CallParts& parts, std::shared_ptr<const User> user,
                      const grpc::ByteBuffer& message, Budget budget,
                      HostWork::Work work) {
  return ToClientStatus(
      parts.host->Post(std::move(user), static_cast<int64_t>(message.Length()),
                       budget == Budget::kNeeded,
                       [work = std::move(work)](const absl::Status& may) {
                         return work(ToClientStatus(may));
                       }));
}

}  // namespace qk
