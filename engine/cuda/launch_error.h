// The first launch that failed since the last question, of each host thread.
#ifndef QKSCOPE_ENGINE_CUDA_LAUNCH_ERROR_H_
#define QKSCOPE_ENGINE_CUDA_LAUNCH_ERROR_H_

#include <utility>

namespace qk::cuda {

// CUDA's cudaError_t; 0 is success.
inline int& LaunchError() {
  thread_local int error = 0;
  return error;
}

inline void NoteLaunch(int error) {
  if (LaunchError() == 0) LaunchError() = error;
}

inline int TakeLaunchError() { return std::exchange(LaunchError(), 0); }

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_LAUNCH_ERROR_H_
