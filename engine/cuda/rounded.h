// The bf16 form of what products read.
#ifndef QKSCOPE_ENGINE_CUDA_ROUNDED_H_
#define QKSCOPE_ENGINE_CUDA_ROUNDED_H_

#include <cstdint>

#include "engine/cuda/kernels.h"
#include "engine/cuda/scratch.h"

namespace qk::cuda {

// A norm, an activation or attention rounds what it writes, so that the product
// that reads it next needs no launch of its own for that. Keeps the rounded
// form of one tensor, until something writes to that tensor.
class Rounded {
 public:
  Rounded(Runtime* runtime, Stream stream)
      : kept_(runtime, stream), scratch_(runtime, stream), stream_(stream) {}

  // Where an op writes `out` (n), and its rounded form, if there is memory.
  Outputs Into(float* out, int64_t n) { return Part(out, 0, n, n); }
  // The same in several ops: this one writes values [begin, end) of `out`
  // (all), and those before have written what comes before.
  Outputs Part(float* out, int64_t begin, int64_t end, int64_t all) {
    const bool follows = begin == 0 || (of_ == out && n_ == begin);
    if (!follows || !kept_.Reserve(2 * all).ok()) {
      Drop();
      return {out};
    }
    of_ = out;
    n_ = end;
    return {out, kept_.as<uint16_t>()};
  }

  // x (n) rounded, by a launch if it is not kept.
  absl::StatusOr<const uint16_t*> Of(const float* x, int64_t n) {
    if (x == of_ && n <= n_) return kept_.as<const uint16_t>();
    QK_RETURN_IF_ERROR(scratch_.Reserve(2 * n));
    RoundToBf16(x, n, scratch_.as<uint16_t>(), stream_);
    return scratch_.as<const uint16_t>();
  }

  // Something has written to x (n).
  void Wrote(const float* x, int64_t n) {
    if (x < of_ + n_ && of_ < x + n) Drop();
  }
  void Drop() {
    of_ = nullptr;
    n_ = 0;
  }

 private:
  Scratch kept_, scratch_;
  const Stream stream_;
  const float* of_ = nullptr;
  int64_t n_ = 0;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ROUNDED_H_
