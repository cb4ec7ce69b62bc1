// What NVIDIA's management library (NVML, which comes with the driver) says of
// a GPU. It is opened when the program runs. It has run on no GPU yet: its
// numbers are those of NVIDIA's reference, and tests stand a fake library in
// for it.
#ifndef QKSCOPE_ENGINE_CUDA_NVML_H_
#define QKSCOPE_ENGINE_CUDA_NVML_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/types/device_reading.h"

namespace qk::cuda {

class Nvml {
 public:
  // `uuid`: of a whole GPU, "GPU-xxxxxxxx-xxxx-...", as DeviceFacts has it.
  // `path`: the library's file; "" for libnvidia-ml.so.1, from where the system
  // looks for libraries. UNAVAILABLE: there is no library, it lacks a function,
  // or it finds no driver; the message says which. NOT_FOUND: it knows no such
  // GPU, or the UUID is of a part of a GPU (MIG), for which NVML has none of
  // these values.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(
      const std::string& uuid, const std::string& path = "");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // By any number of threads at once. UNAVAILABLE: the GPU is lost. INTERNAL:
  // another error of the library.
  absl::StatusOr<DeviceReading> Read() const;

 private:
  struct State;
  explicit Nvml(std::unique_ptr<State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_NVML_H_
