#include "engine/cuda/upload_ring.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"

namespace qk::cuda {
namespace {

constexpr int64_t kAlignment = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<UploadRing>> UploadRing::Make(
    Runtime* runtime, Stream stream, int64_t part_bytes) {
  std::unique_ptr<UploadRing> ring(new UploadRing(runtime, stream, part_bytes));
  QK_RETURN_IF_ERROR(ring->Allocate());
  return ring;
}

absl::Status UploadRing::Allocate() {
  for (Part& part : parts_) {
    QK_ASSIGN_OR_RETURN(void* memory, runtime_->AllocatePinned(part_bytes_));
    part.memory = static_cast<uint8_t*>(memory);
    QK_ASSIGN_OR_RETURN(part.copied, runtime_->MakeEvent());
  }
  return absl::OkStatus();
}

// A failure here is one of a device that is lost, whose memory is gone anyway.
UploadRing::~UploadRing() {
  runtime_->WaitFor(stream_).IgnoreError();
  for (const Part& part : parts_) {
    if (part.copied != nullptr) {
      runtime_->DestroyEvent(part.copied).IgnoreError();
    }
    if (part.memory != nullptr) {
      runtime_->FreePinned(part.memory).IgnoreError();
    }
  }
}

absl::StatusOr<void*> UploadRing::Room(int64_t bytes) {
  QK_CHECK(bytes <= part_bytes_);
  if (used_ + bytes > part_bytes_) {
    QK_RETURN_IF_ERROR(runtime_->Record(parts_[part_].copied, stream_));
    parts_[part_].sent = true;
    part_ = (part_ + 1) % kParts;
    used_ = 0;
    if (parts_[part_].sent) {
      QK_RETURN_IF_ERROR(runtime_->WaitFor(parts_[part_].copied));
    }
  }
  return parts_[part_].memory + used_;
}

absl::Status UploadRing::Send(void* device, int64_t bytes) {
  const uint8_t* from = parts_[part_].memory + used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return runtime_->CopyToDevice(device, from, bytes, stream_);
}

absl::Status UploadRing::Copy(void* device, const void* host, int64_t bytes) {
  auto* to = static_cast<uint8_t*>(device);
  const auto* from = static_cast<const uint8_t*>(host);
  while (bytes > 0) {
    const int64_t n = std::min(bytes, part_bytes_);
    QK_ASSIGN_OR_RETURN(void* room, Room(n));
    std::memcpy(room, from, n);
    QK_RETURN_IF_ERROR(Send(to, n));
    to += n;
    from += n;
    bytes -= n;
  }
  return absl::OkStatus();
}

}  // namespace qk::cuda
