// Bytes of memory that users share: the buffers of streams, messages that wait
// to be read, requests that wait to run.
//
// Whoever comes first takes what is idle, but no user can take everything: a
// fourth of the pool is for users who hold little (with n users that hold some,
// at most 1 / (n + 1) of it). While somebody waits for bytes, others take no
// more than such a part of the rest, so that bytes come free in the end.
#ifndef QKSCOPE_SERVER_COMMON_BYTE_POOL_H_
#define QKSCOPE_SERVER_COMMON_BYTE_POOL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/base/mutex.h"

namespace qk {

class BytePool;

// A part of a pool, returned piece by piece or by the destructor.
class ByteLease {
 public:
  ByteLease() = default;
  ByteLease(ByteLease&& other) noexcept { *this = std::move(other); }
  ByteLease& operator=(ByteLease&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(user_, other.user_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~ByteLease();

  // Makes a lease of its own of `bytes`, or of all that is left if that is
  // less.
  ByteLease Split(int64_t bytes);
  int64_t bytes() const { return bytes_; }

 private:
  friend class BytePool;
  ByteLease(BytePool* pool, absl::string_view user, int64_t bytes)
      : pool_(pool), user_(user), bytes_(bytes) {}

  BytePool* pool_ = nullptr;
  std::string user_;
  int64_t bytes_ = 0;
};

// Thread-safe. Must outlive its leases.
class BytePool {
 public:
  // `what` names the bytes in errors: "stream buffers".
  BytePool(std::string what, int64_t limit)
      : what_(std::move(what)), limit_(limit) {}

  // RESOURCE_EXHAUSTED if the user cannot have `bytes` now; FAILED_PRECONDITION
  // if they exceed the whole pool. `waiter` (nullptr: the caller does not wait)
  // keeps asking until it gets them or calls StopWaiting; of one user's waiters
  // the first one comes first.
  absl::StatusOr<ByteLease> Take(absl::string_view user, int64_t bytes,
                                 const void* waiter = nullptr)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void StopWaiting(const void* waiter) ABSL_LOCKS_EXCLUDED(mutex_);
  // Calls `on_free`, on any thread, when bytes come free that a waiter could
  // not have. It must not call the pool. Must be set before the first Take.
  void SetOnFree(std::function<void()> on_free) {
    on_free_ = std::move(on_free);
  }

  int64_t limit() const { return limit_; }
  int64_t taken() const { return taken_.load(std::memory_order_relaxed); }

 private:
  friend class ByteLease;
  struct Waiter {
    const void* who;
    std::string user;
  };

  bool MayTake(absl::string_view user, int64_t bytes, const void* waiter) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Return(const std::string& user, int64_t bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const void* waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string what_;
  const int64_t limit_;
  std::function<void()> on_free_;
  std::atomic<int64_t> taken_ = 0;  // written under mutex_
  mutable Mutex mutex_;
  // Of users who hold some.
  std::map<std::string, int64_t, std::less<>> held_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);  // the first came first
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_BYTE_POOL_H_
