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
             DeviceBuffer bias, std::optional<CublasLtPlan> plan)
      : out_(out),
        in_(in),
        type_(type),
        w_(std::move(w)),
        bias_(std::move(bias)),
        plan_(std::move(plan)) {}
  static const CudaMatrix& Of(const Matrix& w) {
    return static_cast<const CudaMatrix&>(w);
  }

  int out_features() const override { return out_; }
  int in_features() const override { return in_; }
  int64_t bytes() const override { return w_.bytes() + bias_.bytes(); }
  ComputeType type() const { return type_; }
  const void* w() const { return w_.as<void>(); }
  const float* bias() const { return bias_.as<float>(); }  // or nullptr
  const std::optional<CublasLtPlan>& plan() const { return plan_; }

 private:
  const int out_, in_;
  const ComputeType type_;
  const DeviceBuffer w_, bias_;
  const std::optional<CublasLtPlan> plan_;
};

// Reads weights with several threads of the host into pinned memory, from where
// they go up in large pieces, by a stream of their own; the device rounds them.
// Any thread may call it.
class WeightLoader {
 public:
  WeightLoader(std::shared_ptr<Runtime> runtime, int threads)
      : runtime_(std::move(runtime)), pool_(threads) {}
  // Waits for the device.
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  // w (out, in), in the compute type, on the device = the rows. Returns when it
  // is there.
  absl::Status Load(const RowReader& rows, int64_t out, int64_t in,
                    ComputeType type, void* w);

 private:
  absl::Status MakeRoom(int64_t row_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadRows(const RowReader& rows, int64_t begin, int64_t end,
                        int64_t in, ComputeType type, void* w)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<Runtime> runtime_;
  ThreadPool pool_;
  Mutex mutex_;
  Stream stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::unique_ptr<UploadRing> ring_ ABSL_GUARDED_BY(mutex_);
  int64_t part_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Float32 values (part_bytes_) that wait to be rounded.
  float* unrounded_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_MATRIX_H_
