// A runtime without a device. Work is done at once, in the order of calls. It
// counts calls, lets one of them fail, and notices what a real device would
// punish: a copy outside of its memory, a second Free, memory that is left.
#ifndef QKSCOPE_TESTS_CUDA_ON_CPU_FAKE_RUNTIME_H_
#define QKSCOPE_TESTS_CUDA_ON_CPU_FAKE_RUNTIME_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "engine/cuda/runtime.h"

namespace qk::cuda_on_cpu {

// How often the runtime was called since Clear.
struct CallCounts {
  int64_t launches = 0;
  int64_t to_device = 0, to_host = 0, on_device = 0;  // copies
  int64_t bytes_to_device = 0;
  int64_t allocations = 0;  // of device or pinned memory
  int64_t waits = 0;        // of the host
  int64_t all = 0;          // calls and launches that may fail

  bool operator==(const CallCounts&) const = default;
};

// Whether a FakeRuntime counts the emulation's launches, and lets them fail.
// One that does lives at a time.
enum class Launches { kSeen, kUnseen };

class FakeRuntime final : public cuda::Runtime {
 public:
  explicit FakeRuntime(Launches launches = Launches::kSeen);
  ~FakeRuntime() override;
  FakeRuntime(const FakeRuntime&) = delete;
  FakeRuntime& operator=(const FakeRuntime&) = delete;

  // The k-th call from now on (0: the next one) fails with a code of CUDA's
  // runtime, and does nothing. A code that means a lost device fails all later
  // ones, too.
  void FailCall(int64_t k, int error);
  // Whether that call has come.
  bool failed() const;

  CallCounts counts() const;
  void Clear();
  int64_t live_bytes() const;
  // Streams, events, and pieces of memory that nobody has given back.
  int64_t live_objects() const;

  const cuda::DeviceFacts& facts() const override { return facts_; }
  absl::Status Use() override { return absl::OkStatus(); }
  absl::StatusOr<void*> Allocate(int64_t bytes, cuda::Stream stream) override;
  absl::Status Free(void* data, cuda::Stream stream) override;
  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override;
  absl::Status FreePinned(void* data) override;
  absl::Status Trim() override;
  absl::StatusOr<int64_t> FreeBytes() override;
  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes,
                            cuda::Stream stream) override;
  absl::Status CopyToHost(void* host, const void* device, int64_t bytes,
                          cuda::Stream stream) override;
  absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes,
                            cuda::Stream stream) override;
  absl::Status Zero(void* device, int64_t bytes, cuda::Stream stream) override;
  absl::StatusOr<cuda::Stream> MakeStream() override;
  absl::Status DestroyStream(cuda::Stream stream) override;
  absl::StatusOr<cuda::Event> MakeEvent() override;
  absl::Status DestroyEvent(cuda::Event event) override;
  absl::Status Record(cuda::Event event, cuda::Stream stream) override;
  absl::Status Follow(cuda::Stream stream, cuda::Event event) override;
  absl::StatusOr<bool> Happened(cuda::Event event) override;
  absl::Status WaitFor(cuda::Event event) override;
  absl::Status WaitFor(cuda::Stream stream) override;
  absl::StatusOr<double> SecondsBetween(cuda::Event from,
                                        cuda::Event to) override;
  absl::Status LaunchStatus() override;

 private:
  struct Delete {
    void operator()(uint8_t* p) const;
  };
  struct Memory {
    std::unique_ptr<uint8_t[], Delete> data;
    int64_t bytes = 0;
  };
  using Heap = std::map<const void*, Memory>;

  // Counts a call; the code that it fails with, or 0.
  int Call() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Called(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<void*> Take(Heap& heap, int64_t bytes, const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Give(Heap& heap, void* data, const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the test unless the bytes are within one piece of device memory.
  void CheckInside(const void* data, int64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t Live() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Launches launches_;
  cuda::DeviceFacts facts_;
  mutable Mutex mutex_;
  CallCounts counts_ ABSL_GUARDED_BY(mutex_);
  // How many calls are left before the one that fails.
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = -1;
  int fail_with_ ABSL_GUARDED_BY(mutex_) = 0;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  Heap device_ ABSL_GUARDED_BY(mutex_), pinned_ ABSL_GUARDED_BY(mutex_);
  // When each was recorded.
  std::map<intptr_t, double> events_ ABSL_GUARDED_BY(mutex_);
  std::set<intptr_t> streams_ ABSL_GUARDED_BY(mutex_);
  intptr_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  // Seconds; grows with every call.
  double clock_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace qk::cuda_on_cpu

#endif  // QKSCOPE_TESTS_CUDA_ON_CPU_FAKE_RUNTIME_H_
