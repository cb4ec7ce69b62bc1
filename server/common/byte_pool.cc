#include "server/common/byte_pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/common/text.h"

namespace qk {
namespace {

// The part of the pool for users who hold little.
constexpr int64_t kReservePart = 4;

}  // namespace

ByteLease::~ByteLease() {
  if (bytes_ > 0) pool_->Return(user_, bytes_);
}

ByteLease ByteLease::Split(int64_t bytes) {
  bytes = std::min(bytes, bytes_);
  bytes_ -= bytes;
  return ByteLease(pool_, user_, bytes);
}

bool BytePool::MayTake(absl::string_view user, int64_t bytes,
                       const void* waiter) const {
  const int64_t taken = taken_.load();
  if (bytes > limit_ - taken) return false;
  bool others_wait = false;
  for (const Waiter& other : waiters_) {
    if (other.who == waiter) break;
    if (other.user == user) return false;  // it came first
    others_wait = true;
  }
  const auto it = held_.find(user);
  const int64_t had = it == held_.end() ? 0 : it->second;
  const int64_t users = static_cast<int64_t>(held_.size()) + (had == 0 ? 1 : 0);
  const int64_t reserve = limit_ / kReservePart;
  if (had + bytes <= reserve / (users + 1)) return true;
  // With more than that, the reserve stays free, unless nobody has anything.
  if (bytes > limit_ - reserve - taken) return taken == 0 && !others_wait;
  return !others_wait || had + bytes <= (limit_ - reserve) / (users + 1);
}

absl::StatusOr<ByteLease> BytePool::Take(absl::string_view user, int64_t bytes,
                                         const void* waiter) {
  if (bytes > limit_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the request may need ", HumanBytes(bytes), " of ", what_, ", limit ",
        HumanBytes(limit_), "; reduce layers/heads/positions"));
  }
  MutexLock lock(&mutex_);
  if (MayTake(user, bytes, waiter)) {
    if (waiter != nullptr) Forget(waiter);
    if (bytes > 0) held_[std::string(user)] += bytes;
    taken_ += bytes;
    return ByteLease(this, user, bytes);
  }
  if (waiter != nullptr) {
    const bool known =
        std::any_of(waiters_.begin(), waiters_.end(),
                    [&](const Waiter& other) { return other.who == waiter; });
    if (!known) waiters_.push_back({waiter, std::string(user)});
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the request may need ", HumanBytes(bytes), " of ", what_,
                   ", ", HumanBytes(limit_ - taken_.load()), " of ",
                   HumanBytes(limit_), " are free"));
}

void BytePool::StopWaiting(const void* waiter) {
  bool others_wait = false;
  {
    MutexLock lock(&mutex_);
    const size_t before = waiters_.size();
    Forget(waiter);
    others_wait = !waiters_.empty() && waiters_.size() < before;
  }
  if (others_wait && on_free_ != nullptr) on_free_();
}

void BytePool::Return(const std::string& user, int64_t bytes) {
  bool wanted = false;
  {
    MutexLock lock(&mutex_);
    taken_ -= bytes;
    const auto it = held_.find(user);
    it->second -= bytes;
    if (it->second == 0) held_.erase(it);
    wanted = !waiters_.empty();
  }
  if (wanted && on_free_ != nullptr) on_free_();
}

void BytePool::Forget(const void* waiter) {
  std::erase_if(waiters_,
                [&](const Waiter& other) { return other.who == waiter; });
}

}  // namespace qk
