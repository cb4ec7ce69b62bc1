// The budget of bytes that results may occupy while they wait for slow readers,
// over all streams. A request takes its part before its work starts, so that
// the device never waits for a reader and memory cannot run out half-way.
#ifndef QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_
#define QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace qk {

class BufferBudget;

// A part of the budget, returned piece by piece or by the destructor.
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

  // Returns `bytes` to the budget, or all that is left if that is less.
  void Release(int64_t bytes);
  int64_t bytes() const { return bytes_; }

 private:
  friend class BufferBudget;
  BufferLease(BufferBudget* budget, int64_t bytes)
      : budget_(budget), bytes_(bytes) {}

  BufferBudget* budget_ = nullptr;
  int64_t bytes_ = 0;
};

// Thread-safe. Must outlive its leases.
class BufferBudget {
 public:
  explicit BufferBudget(int64_t limit) : limit_(limit) {}

  // RESOURCE_EXHAUSTED if `bytes` are not free now; FAILED_PRECONDITION if they
  // exceed the whole budget.
  absl::StatusOr<BufferLease> Take(int64_t bytes);
  int64_t taken() const { return taken_.load(std::memory_order_relaxed); }

 private:
  friend class BufferLease;
  const int64_t limit_;
  std::atomic<int64_t> taken_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_BUFFER_BUDGET_H_
