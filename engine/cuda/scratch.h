// Device memory of a backend's own: what ops need beside their arguments.
#ifndef QKSCOPE_ENGINE_CUDA_SCRATCH_H_
#define QKSCOPE_ENGINE_CUDA_SCRATCH_H_

#include <algorithm>
#include <cstdint>

#include "engine/base/check.h"
#include "engine/cuda/runtime.h"

namespace qk::cuda {

// Memory that grows and is used by one stream.
class Scratch {
 public:
  Scratch(Runtime* runtime, Stream stream)
      : runtime_(runtime), stream_(stream) {}
  ~Scratch() {
    if (data_ != nullptr) runtime_->Free(data_, stream_).IgnoreError();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Makes room for `bytes`; what was there is lost. Work of the stream that
  // uses the old memory is done before it is freed.
  absl::Status Reserve(int64_t bytes) {
    if (bytes <= size_) return absl::OkStatus();
    const int64_t size = std::max(bytes, 2 * size_);
    absl::StatusOr<void*> larger = runtime_->Allocate(size, stream_);
    if (!larger.ok()) return larger.status();
    if (data_ != nullptr) {
      QK_RETURN_IF_ERROR(runtime_->Free(data_, stream_));
    }
    data_ = *larger;
    size_ = size;
    return absl::OkStatus();
  }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size() const { return size_; }

 private:
  Runtime* const runtime_;
  const Stream stream_;
  void* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_SCRATCH_H_
