// Pinned memory through which the host's data goes up: the device reads it
// later, when the caller's own may be gone.
#ifndef QKSCOPE_ENGINE_CUDA_UPLOAD_RING_H_
#define QKSCOPE_ENGINE_CUDA_UPLOAD_RING_H_

#include <cstdint>
#include <memory>

#include "engine/cuda/runtime.h"

namespace qk::cuda {

// Used by one thread at a time, for one stream.
class UploadRing {
 public:
  static absl::StatusOr<std::unique_ptr<UploadRing>> Make(Runtime* runtime,
                                                          Stream stream,
                                                          int64_t part_bytes);
  // Waits for the device.
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  // Copies host memory, which is read before this returns. Waits only if all of
  // the ring is on its way.
  absl::Status Copy(void* device, const void* host, int64_t bytes);

  // Pinned memory of up to part_bytes for the caller to fill; Send copies it
  // to the device.
  absl::StatusOr<void*> Room(int64_t bytes);
  absl::Status Send(void* device, int64_t bytes);

 private:
  static constexpr int kParts = 4;
  struct Part {
    uint8_t* memory = nullptr;
    Event copied = nullptr;
    bool sent = false;
  };

  UploadRing(Runtime* runtime, Stream stream, int64_t part_bytes)
      : runtime_(runtime), stream_(stream), part_bytes_(part_bytes) {}
  absl::Status Allocate();

  Runtime* const runtime_;
  const Stream stream_;
  const int64_t part_bytes_;
  Part parts_[kParts];
  int part_ = 0;
  int64_t used_ = 0;  // bytes of the part
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_UPLOAD_RING_H_
