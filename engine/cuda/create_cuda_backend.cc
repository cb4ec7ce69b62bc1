#include <utility>

#include "engine/base/check.h"
#include "engine/cuda/cuda_backend.h"

namespace qk {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const CudaBackendOptions& options) {
  QK_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Runtime> runtime,
                      cuda::OpenRuntime({.device = options.device,
                                         .memory_bytes = options.memory_bytes,
                                         .memory_part = options.memory_part}));
  return cuda::MakeCudaBackend(std::move(runtime), options.threads,
                               options.libraries);
}

}  // namespace qk
