// What a backend on a GPU says of itself.
#ifndef QKSCOPE_ENGINE_CUDA_DESCRIBE_H_
#define QKSCOPE_ENGINE_CUDA_DESCRIBE_H_

#include <string>

#include "engine/backend/backend.h"
#include "engine/cuda/runtime.h"
#include "engine/types/backend_info.h"
#include "engine/types/device_reading.h"

namespace qk::cuda {

// `f32`, `bf16`: what multiplies matrices of these types.
BackendInfo Describe(const DeviceFacts& facts, const DeviceReading& reading,
                     const std::string& f32, const std::string& bf16);

Tiles GpuTiles();

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_DESCRIBE_H_
