// The tests' backend with one injected failure: of an allocation, of an op, or
// of the whole device.
#ifndef QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_
#define QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "tests/engine/forwarding_backend.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

// The state that a test shares with its backend, which the server owns.
struct Faults {
  std::atomic<int64_t> allocations{0};  // so far
  std::atomic<int64_t> ops{0};
  std::atomic<int64_t> fail_allocation{0};  // the n-th; 0: none
  std::atomic<int64_t> fail_op{0};
  std::atomic<bool> lost_to_ops{false};  // Synchronize says so
  std::atomic<bool> lost_to_memory{false};

  void Reset() { allocations = ops = fail_allocation = fail_op = 0; }
};

class FaultyBackend : public ForwardingBackend {
 public:
  explicit FaultyBackend(std::shared_ptr<Faults> faults)
      : ForwardingBackend(MakeTestBackend(1)), faults_(std::move(faults)) {}

  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    if (faults_->lost_to_memory) return Lost("injected: lost");
    if (++faults_->allocations == faults_->fail_allocation) {
      return absl::ResourceExhaustedError("injected: no memory");
    }
    return ForwardingBackend::Allocate(bytes);
  }
  absl::Status Synchronize() override {
    if (faults_->lost_to_ops) return Lost("injected: lost");
    return std::exchange(status_, absl::OkStatus());
  }

 private:
  // None runs after the first failure.
  bool Before(const char*) override {
    if (++faults_->ops == faults_->fail_op) {
      status_ = absl::InternalError("injected: bad op");
    }
    return status_.ok();
  }

  const std::shared_ptr<Faults> faults_;
  absl::Status status_;  // sticks until Synchronize
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_FAULTY_BACKEND_H_
