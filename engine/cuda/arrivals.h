// Results on their way to the host, and moments of the device.
#ifndef QKSCOPE_ENGINE_CUDA_ARRIVALS_H_
#define QKSCOPE_ENGINE_CUDA_ARRIVALS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/backend/arrival.h"
#include "engine/backend/moment.h"
#include "engine/base/mutex.h"
#include "engine/cuda/runtime.h"

namespace qk::cuda {

// Pinned memory for results. It is kept for later results, up to the most that
// were held at one time. Slots keep the pool alive, so they may outlive the
// backend.
class ArrivalPool : public std::enable_shared_from_this<ArrivalPool> {
 public:
  static absl::StatusOr<std::shared_ptr<ArrivalPool>> Make(
      std::shared_ptr<Runtime> runtime, Stream compute);
  // Waits for the device.
  ~ArrivalPool();
  ArrivalPool(const ArrivalPool&) = delete;
  ArrivalPool& operator=(const ArrivalPool&) = delete;

  // Copies what the device will have when it has done the work so far. A large
  // result is set aside and goes out by a stream of its own, beside later work.
  absl::StatusOr<Arrival> Fetch(const void* device, int64_t bytes);
  // When the work so far is done and all that was fetched has arrived. On a
  // device that has failed, it is reached at once.
  std::unique_ptr<Moment> Mark();
  // Waits for all of it.
  absl::Status Wait();

 private:
  // One piece of pinned memory. `copied` happens when its result is here.
  struct Piece {
    void* memory = nullptr;
    int64_t size = 0;
    Event copied = nullptr;
  };
  class PinnedSlot;

  ArrivalPool(std::shared_ptr<Runtime> runtime, Stream compute)
      : runtime_(std::move(runtime)), compute_(compute) {}
  absl::StatusOr<Piece> Take(int64_t bytes);
  absl::StatusOr<Piece> MakePiece(int64_t bytes);
  void GiveBack(const Piece& piece);
  void Destroy(const Piece& piece);
  absl::Status Copy(const Piece& piece, const void* device, int64_t bytes);
  absl::Status CopyBeside(const Piece& piece, void* aside, int64_t bytes);

  const std::shared_ptr<Runtime> runtime_;
  const Stream compute_;
  Stream copies_ = nullptr;
  std::atomic<int64_t> fetched_{0};  // results so far
  // The first ones, of which Wait has seen that they are here.
  std::atomic<int64_t> arrived_{0};
  Mutex mutex_;
  // By size. A piece may still be on its way for a slot that is gone.
  std::multimap<int64_t, Piece> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ARRIVALS_H_
