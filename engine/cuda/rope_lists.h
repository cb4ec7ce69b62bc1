// The rows of a RoPE table, as its kernel takes them.
#ifndef QKSCOPE_ENGINE_CUDA_ROPE_LISTS_H_
#define QKSCOPE_ENGINE_CUDA_ROPE_LISTS_H_

#include <cstdint>

#include "engine/backend/jobs.h"
#include "engine/cuda/arguments.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {

class RopeLists {
 public:
  explicit RopeLists(absl::Span<const RopeRows> all);

  const Arguments& arguments() const { return arguments_; }
  int rows() const { return rows_; }
  // The table's description; `data`: where the arguments lie on the device.
  RopeTable Table(const RopeConfig& rope, const uint8_t* data) const;

 private:
  Arguments arguments_;
  int rows_ = 0;
  // Where each list begins.
  int64_t positions_ = 0, sets_ = 0, places_ = 0, frequencies_ = 0;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ROPE_LISTS_H_
