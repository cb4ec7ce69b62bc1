#include "server/calls/post_work.h"

#include <utility>

#include "server/calls/prepared_run.h"
#include "server/common/guarded.h"

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

absl::Status PostBegin(const CallParts& parts, std::shared_ptr<const User> user,
                       const grpc::ByteBuffer& message, Budget budget,
                       std::function<absl::Status()> begin,
                       std::function<void(const absl::Status&)> done) {
  return PostWork(parts, std::move(user), message, budget,
                  [begin = std::move(begin),
                   done = std::move(done)](const absl::Status& may) {
                    done(may.ok() ? Guarded("begin", begin) : may);
                    return HostWork::Then();
                  });
}

absl::StatusOr<ByteLease> TakeBytes(BytePool* pool, const User& user,
                                    int64_t bytes, Refusal reason) {
  auto lease = pool->Take(user.alias, bytes);
  if (lease.ok()) return lease;
  return Refused(
      absl::IsFailedPrecondition(lease.status()) ? Refusal::kNeverFits : reason,
      absl::ResourceExhaustedError(lease.status().message()));
}

}  // namespace qk
