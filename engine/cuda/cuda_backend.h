// The CUDA backend: one NVIDIA GPU. Its kernels are in this folder, one file
// per kind of op, as the CPU's.
#ifndef QKSCOPE_ENGINE_CUDA_CUDA_BACKEND_H_
#define QKSCOPE_ENGINE_CUDA_CUDA_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/cuda/runtime.h"

namespace qk {

// What multiplies bf16 matrices. kOwn: our kernels, in which a row's bytes do
// not depend on the rows beside it, by construction. kCublasLt: NVIDIA's
// library, and a weight for which the probe (cublaslt_probe.h) finds no
// algorithm does not load. kAuto: the library where the probe passes.
enum class MatMulLibrary { kOwn, kCublasLt, kAuto };

// Libraries that are opened when the program runs. Files: "" is where the
// system has them.
struct CudaLibraries {
  MatMulLibrary matmul = MatMulLibrary::kOwn;
  std::string cublaslt_file = {};
  std::string nvml_file = {};
};

struct CudaBackendOptions {
  std::string device;  // an index, a UUID, or "": the first
  // The most device memory that the backend may hold, in bytes or as a part of
  // all that the device has; 0 and 0: all that is free.
  int64_t memory_bytes = 0;
  double memory_part = 0;
  CudaLibraries libraries = {};
  int threads = 0;  // of the host, which read weights; 0: the number of cores
};

// UNAVAILABLE: there is no driver, no device, or one that is too old; the
// message says which. NOT_FOUND: no such device, with those that there are.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const CudaBackendOptions& options);

namespace cuda {

// A backend over a runtime. The other arguments are as above.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(
    std::shared_ptr<Runtime> runtime, int threads,
    const CudaLibraries& libraries = {});

}  // namespace cuda
}  // namespace qk

#endif  // QKSCOPE_ENGINE_CUDA_CUDA_BACKEND_H_
