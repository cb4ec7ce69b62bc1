#include "engine/cuda/matrix.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int64_t kPartBytes = int64_t{16} << 20;

}  // namespace

WeightLoader::~WeightLoader() {
  MutexLock lock(&mutex_);
  if (stream_ == nullptr) return;
  if (unrounded_ != nullptr) {
    runtime_->Free(unrounded_, stream_).IgnoreError();
  }
  ring_.reset();
  runtime_->DestroyStream(stream_).IgnoreError();
}

absl::Status WeightLoader::MakeRoom(int64_t row_bytes) {
  if (stream_ == nullptr) {
    QK_ASSIGN_OR_RETURN(stream_, runtime_->MakeStream());
  }
  if (ring_ != nullptr && row_bytes <= part_bytes_) return absl::OkStatus();
  ring_.reset();
  if (unrounded_ != nullptr) {
    QK_RETURN_IF_ERROR(
        runtime_->Free(std::exchange(unrounded_, nullptr), stream_));
  }
  part_bytes_ = std::max(kPartBytes, row_bytes);
  QK_ASSIGN_OR_RETURN(void* unrounded,
                      runtime_->Allocate(part_bytes_, stream_));
  unrounded_ = static_cast<float*>(unrounded);
  QK_ASSIGN_OR_RETURN(ring_,
                      UploadRing::Make(runtime_.get(), stream_, part_bytes_));
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadRows(const RowReader& rows, int64_t begin,
                                    int64_t end, int64_t in, ComputeType type,
                                    void* w) {
  const int64_t floats = (end - begin) * in;
  QK_ASSIGN_OR_RETURN(void* room, ring_->Room(4 * floats));
  auto* values = static_cast<float*>(room);
  const int64_t share = (end - begin + pool_.size() - 1) / pool_.size();
  pool_.For(pool_.size(), [&](int64_t i, int) {
    const int64_t first = std::min(end, begin + i * share);
    const int64_t last = std::min(end, first + share);
    if (first < last) rows(first, last, values + (first - begin) * in);
  });
  if (type == ComputeType::kF32) {
    return ring_->Send(static_cast<float*>(w) + begin * in, 4 * floats);
  }
  QK_RETURN_IF_ERROR(ring_->Send(unrounded_, 4 * floats));
  RoundToBf16(unrounded_, floats, static_cast<uint16_t*>(w) + begin * in,
              stream_);
  return runtime_->LaunchStatus();
}

absl::Status WeightLoader::Load(const RowReader& rows, int64_t out, int64_t in,
                                ComputeType type, void* w) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(runtime_->Use());
  QK_RETURN_IF_ERROR(MakeRoom(4 * in));
  const int64_t step = part_bytes_ / (4 * std::max<int64_t>(in, 1));
  for (int64_t row = 0; row < out; row += step) {
    QK_RETURN_IF_ERROR(
        LoadRows(rows, row, std::min(out, row + step), in, type, w));
  }
  return runtime_->WaitFor(stream_);
}

}  // namespace qk::cuda
