// The CUDA backend over the emulation, with a runtime that the test holds.
#ifndef QKSCOPE_TESTS_ENGINE_CUDA_BACKEND_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_CUDA_BACKEND_TESTING_H_

#include <memory>
#include <utility>

#include "engine/cuda/cuda_backend.h"
#include "tests/cuda_on_cpu/fake_runtime.h"

namespace qk::testing {

struct EmulatedDevice {
  EmulatedDevice()
      : runtime(std::make_shared<cuda_on_cpu::FakeRuntime>()),
        backend(cuda::MakeCudaBackend(runtime, 1).value()) {}

  const std::shared_ptr<cuda_on_cpu::FakeRuntime> runtime;
  std::unique_ptr<Backend> backend;
};

// CUDA's codes.
inline constexpr int kCudaOutOfMemory = 2, kCudaIllegalAddress = 700;

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_CUDA_BACKEND_TESTING_H_
