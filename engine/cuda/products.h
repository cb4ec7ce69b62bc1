// Which kernel multiplies: ours, or cuBLASLt's where its probe has passed.
#ifndef QKSCOPE_ENGINE_CUDA_PRODUCTS_H_
#define QKSCOPE_ENGINE_CUDA_PRODUCTS_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/backend/backend.h"
#include "engine/base/mutex.h"
#include "engine/cuda/cublaslt.h"
#include "engine/cuda/cuda_backend.h"
#include "engine/cuda/matrix.h"
#include "engine/cuda/work_queue.h"

namespace qk::cuda {

class Products {
 public:
  // `queue` must outlive the object. UNAVAILABLE: kCublasLt, and the library
  // cannot be used; the message says why.
  static absl::StatusOr<std::unique_ptr<Products>> Make(
      WorkQueue* queue, const CudaLibraries& libraries);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  struct Judgement {
    std::optional<CublasLtPlan> plan;  // the library's, or nothing: our kernel
    MatMulChoice choice;
  };

  // What multiplies a weight (out, in) of the type, on the device. Weights of
  // one shape are judged once. Waits; any thread may call it.
  // FAILED_PRECONDITION: kCublasLt, and no algorithm passes the probe; the
  // message has its verdict.
  absl::StatusOr<Judgement> Choose(const void* w, ComputeType type, int out,
                                   int in);

  // An op of the queue. `range`: as MatMulRange's; nullptr: all rows. The
  // library knows no ranges, so our kernel multiplies those.
  void MatMul(const float* x, absl::Span<const qk::Product> products, int rows,
              const int32_t* range);

  // "own-sm_90", or "cublaslt-13.1.0" for shapes that its probe has passed.
  std::string kernel_id(ComputeType type) const;

 private:
  using Shape = std::pair<int, int>;  // out, in

  Products(WorkQueue* queue, MatMulLibrary library)
      : queue_(queue), library_(library) {}
  absl::Status Open(const std::string& path);
  std::string own_kernel() const;
  std::string library_kernel() const;  // of ops_, which must be there
  absl::StatusOr<Judgement> Probe(const void* w, Shape shape)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // At most kMostProducts of them, by our kernel. `type`: x's and the weights'.
  void MultiplyOwn(const void* x, ComputeType type,
                   absl::Span<const qk::Product> products, int rows,
                   const int32_t* range);
  void MultiplyByLibrary(const void* x, const qk::Product& product, int rows);

  WorkQueue* const queue_;
  const MatMulLibrary library_;
  // One for ops and one for the probe, which another thread may run beside
  // them. nullptr: our kernels alone.
  std::unique_ptr<CublasLt> ops_;
  void* workspace_ = nullptr;
  Mutex mutex_;
  std::unique_ptr<CublasLt> probe_ ABSL_GUARDED_BY(mutex_);
  Stream probe_stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::map<Shape, Judgement> judged_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_PRODUCTS_H_
