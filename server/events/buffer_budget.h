// Bytes of results that may wait for slow readers, over all streams. Taken
// before a request's work starts, so that the device never waits for a reader
// and memory cannot run out half-way.
#ifndef QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_
#define QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace qk {

class BufferBudget;

// A part of the budget; given back piece by piece or with the object.
class BufferLease {
 public:
  BufferLease() = default;
  BufferLease(BufferLease&& other) noexcept { *this = std::move(other); }
  BufferLease& operator=(BufferLease&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~BufferLease() { Release(bytes_); }

  // At most what is left.
  void Release(int64_t bytes);
  int64_t bytes() const { return bytes_; }

 private:
  friend class BufferBudget;
  BufferLease(BufferBudget* budget, int64_t bytes)
      : budget_(budget), bytes_(bytes) {}

  BufferBudget* budget_ = nullptr;
  int64_t bytes_ = 0;
};

// Thread-safe; outlives its leases.
class BufferBudget {
 public:
  explicit BufferBudget(int64_t limit) : limit_(limit) {}

  // RESOURCE_EXHAUSTED when it is not there now; FAILED_PRECONDITION when it
  // never could be.
  absl::StatusOr<BufferLease> Take(int64_t bytes);
  int64_t taken() const { return taken_.load(std::memory_order_relaxed); }

 private:
  friend class BufferLease;
  const int64_t limit_;
  std::atomic<int64_t> taken_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_
