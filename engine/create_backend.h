// Creates one of this build's backends. Only create_backend.cc names their
// folders.
#ifndef QKSCOPE_ENGINE_CREATE_BACKEND_H_
#define QKSCOPE_ENGINE_CREATE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/backend/backend.h"

namespace qk {

struct BackendOptions {
  std::string name = "auto";  // "auto": the best that this machine can run
  int threads = 0;            // of the host; 0: the number of cores
  // Of the CUDA backend: a device's index or UUID ("": the first), and the most
  // memory that it may hold on the device, in bytes or as a part of all that
  // the device has (0 and 0: all that is free).
  std::string device = {};
  int64_t device_memory_bytes = 0;
  double device_memory_part = 0;
  // What multiplies bf16 matrices on a GPU: own, cublaslt or auto
  // (engine/cuda/cuda_backend.h).
  std::string matmul = "own";
};

struct CreatedBackend {
  std::unique_ptr<Backend> backend;
  // Why "auto" has not taken a better one: "cuda: there is no NVIDIA driver".
  std::string passed_over;
};

// INVALID_ARGUMENT: no backend has this name, or this build lacks it.
absl::Status CheckBackendName(absl::string_view name);
// INVALID_ARGUMENT: BackendOptions::matmul has no such value.
absl::Status CheckMatMulName(absl::string_view name);
// Also UNAVAILABLE: the named backend cannot run on this machine; the message
// says why. NOT_FOUND: the machine has no such device.
absl::StatusOr<CreatedBackend> CreateBackend(const BackendOptions& options);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CREATE_BACKEND_H_
