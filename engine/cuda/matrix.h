// Weights on the device, and how they come there.
#ifndef QKSCOPE_ENGINE_CUDA_MATRIX_H_
#define QKSCOPE_ENGINE_CUDA_MATRIX_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/backend/backend.h"
#include "engine/base/mutex.h"
#include "engine/base/thread_pool.h"
#include "engine/cuda/cublaslt.h"
#include "engine/cuda/runtime.h"
#include "engine/cuda/upload_ring.h"

namespace qk::cuda {

// (out, in) in the compute type, row-major.
class CudaMatrix final : public Matrix {
 public:
  // `plan`: cuBLASLt's, or nothing for our kernel.
  CudaMatrix(int out, int in, ComputeType type, DeviceBuffer w,
             DeviceBuffer bias, std::optional<CublasLtPlan> plan,
             MatMulChoice choice)
      : out_(out),
        in_(in),
        type_(type),
        w_(std::move(w)),
        bias_(std::move(bias)),
        plan_(std::move(plan)),
        choice_(std::move(choice)) {}
  static const CudaMatrix& Of(const Matrix& w) {
    return static_cast<const CudaMatrix&>(w);
  }

  int out_features() const override { return out_; }
  int in_features() const override { return in_; }
  int64_t bytes() const override { return w_.bytes() + bias_.bytes(); }
  MatMulChoice choice() const override { return choice_; }
  ComputeType type() const { return type_; }
  const void* w() const { return w_.as<void>(); }
  const float* bias() const { return bias_.as<float>(); }  // or nullptr
  const std::optional<CublasLtPlan>& plan() const { return plan_; }

 private:
  const int out_, in_;
  const ComputeType type_;
  const DeviceBuffer w_, bias_;
  const std::optional<CublasLtPlan> plan_;
  const MatMulChoice choice_;
};

// Reads weights with several threads of the host into pinned memory, from where
// they go up in large parts, by a stream of their own: as the file has them
// where it can be, as float32 otherwise. The device converts them. Any thread
// may call it.
class WeightLoader {
 public:
  // What goes up at once has `part_bytes`, or a row (of 4-bit integers, eight)
  // if that is more; pinned memory has a few times that.
  WeightLoader(std::shared_ptr<Runtime> runtime, int threads,
               int64_t part_bytes = int64_t{16} << 20)
      : runtime_(std::move(runtime)), least_(part_bytes), pool_(threads) {}
  // Waits for the device.
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  // w (out, in), in the compute type, on the device = the rows. Returns when it
  // is there, or when nothing writes to it any more.
  absl::Status Load(const WeightRows& rows, int64_t out, int64_t in,
                    ComputeType type, void* w);

 private:
  // For parts of at least `bytes`.
  absl::Status MakeRoom(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadBlocks(const BlockRows& rows, int64_t out, int64_t in,
                          ComputeType type, void* w)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadInt4(const Int4Rows& rows, int64_t out, int64_t in,
                        ComputeType type, void* w)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadInt4Part(const Int4Rows& rows, Range outputs, int in,
                            ComputeType type, void* w)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Calls task(share of [0, n)) in all threads.
  template <typename Task>
  void Share(int64_t n, const Task& task);

  const std::shared_ptr<Runtime> runtime_;
  const int64_t least_;  // of part_bytes_
  ThreadPool pool_;
  Mutex mutex_;
  Stream stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::unique_ptr<UploadRing> ring_ ABSL_GUARDED_BY(mutex_);
  int64_t part_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Device memory (part_bytes_): what waits to be converted.
  uint8_t* stored_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_MATRIX_H_
