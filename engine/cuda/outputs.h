// Where an op's result goes.
#ifndef QKSCOPE_ENGINE_CUDA_OUTPUTS_H_
#define QKSCOPE_ENGINE_CUDA_OUTPUTS_H_

#include <cstdint>

namespace qk::cuda {

// Device memory; either may be null. What only a matrix product reads needs
// just its bf16.
struct Outputs {
  float* f32 = nullptr;
  uint16_t* bf16 = nullptr;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_OUTPUTS_H_
