// One GPU's work: what runs on it in order, what goes to it and comes from it,
// and what has failed.
#ifndef QKSCOPE_ENGINE_CUDA_WORK_QUEUE_H_
#define QKSCOPE_ENGINE_CUDA_WORK_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "engine/base/mutex.h"
#include "engine/cuda/arguments.h"
#include "engine/cuda/arrivals.h"
#include "engine/cuda/rounded.h"
#include "engine/cuda/runtime.h"
#include "engine/cuda/scratch.h"
#include "engine/cuda/upload_ring.h"

namespace qk::cuda {

// Ops are launched by one thread at a time; memory and uploads may be another
// thread's, so that a model loads beside a pass. A failure is told to the
// thread whose call has failed, unless the device is lost: then to all.
class WorkQueue {
 public:
  // `lost` is called when the device is lost, and returns the status for it.
  using OnLost = std::function<absl::Status(absl::string_view)>;
  static absl::StatusOr<std::unique_ptr<WorkQueue>> Make(
      std::shared_ptr<Runtime> runtime, OnLost lost);
  // Waits for the device.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  Runtime& runtime() { return *runtime_; }
  const Runtime& runtime() const { return *runtime_; }
  Stream stream() const { return stream_; }

  // Runs an op, unless one of this thread's has failed. A launch that fails is
  // the op's failure. The op may write to any tensor.
  template <typename Op>
  void Run(const Op& op) {
    stale_ = true;
    RunAside(op);
  }
  // The same for an op that writes to no tensor that a product reads, or that
  // tells rounded() where it writes.
  template <typename Op>
  void RunAside(const Op& op) {
    if (!Ready()) return;
    if (stale_.exchange(false)) rounded_->Drop();
    op();
    Note(runtime_->LaunchStatus());
  }
  // Whether nothing of this thread's has failed. An op asks once more after it
  // has uploaded something by itself.
  bool Ready();
  // Keeps the first failure of this thread. Returns status.ok().
  bool Note(const absl::Status& status);
  // Waits; returns this thread's first failure since the last call.
  absl::Status Synchronize();

  absl::StatusOr<void*> Allocate(int64_t bytes);
  void Free(void* data);
  void Upload(void* device, const void* host, int64_t bytes);
  Arrival Fetch(const void* device, int64_t bytes);
  std::unique_ptr<Moment> Mark() { return arrivals_->Mark(); }

  // Brings an op's lists to the device, where they stay for the op; nullptr: an
  // op's failure.
  const uint8_t* Send(const Arguments& lists);
  // Memory of one op, or nullptr: an op's failure. An op asks once.
  float* Partial(int64_t floats);
  Rounded& rounded() { return *rounded_; }
  // Where an op writes n values of `out`.
  Outputs Into(float* out, int64_t n) {
    return rounds_ ? rounded_->Into(out, n) : Outputs{out};
  }
  // From now on there are products of rounded inputs.
  void StartRounding() { rounds_ = true; }
  bool rounds() const { return rounds_; }

 private:
  WorkQueue(std::shared_ptr<Runtime> runtime, OnLost lost)
      : runtime_(std::move(runtime)), lost_call_(std::move(lost)) {}
  absl::Status Open();

  const std::shared_ptr<Runtime> runtime_;
  const OnLost lost_call_;
  Stream stream_ = nullptr;
  std::shared_ptr<ArrivalPool> arrivals_;

  Mutex upload_mutex_;
  std::unique_ptr<UploadRing> uploads_ ABSL_GUARDED_BY(upload_mutex_);

  Mutex failure_mutex_;
  std::map<std::thread::id, absl::Status> failures_
      ABSL_GUARDED_BY(failure_mutex_);
  absl::Status lost_ ABSL_GUARDED_BY(failure_mutex_);
  std::atomic<bool> any_failure_{false};

  // Of the thread that launches ops.
  std::optional<Scratch> lists_;  // of the ops so far, one after another
  int64_t sent_ = 0;              // bytes of them
  std::optional<Scratch> partial_;
  std::optional<Rounded> rounded_;
  std::atomic<bool> rounds_{false};
  // Whether a rounded tensor may have changed since the last op.
  std::atomic<bool> stale_{false};
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_WORK_QUEUE_H_
