#include "engine/cuda/matrix.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/cuda/dequantize.h"

namespace qk::cuda {
namespace {

// Whether the bytes are what the device multiplies by.
bool IsComputeType(DType stored, ComputeType type) {
  return type == ComputeType::kF32 ? stored == DType::kF32
                                   : stored == DType::kBF16;
}

BlockRows AsBlocks(const RowReader& floats, int64_t in) {
  return {DType::kF32, 4 * in,
          [&floats](int64_t begin, int64_t end, uint8_t* out) {
            floats(begin, end, reinterpret_cast<float*>(out));
          }};
}

// How a part of a layer of 4-bit integers lies in memory: words, scales, the
// inputs' groups, zeros; offsets in bytes.
struct Int4Layout {
  Int4Layout(const Int4Rows& rows, int64_t outputs, int64_t in)
      : lines(rows.words_of_inputs ? in / 8 : in),
        scales(in * outputs / 2),
        group_of(scales + 4 * rows.groups * outputs),
        zeros(group_of + 4 * static_cast<int64_t>(rows.group_of.size())),
        bytes(zeros + rows.groups * outputs) {}

  Int4Part At(const uint8_t* data, const Int4Rows& rows, int outputs,
              int in) const {
    Int4Part part;
    part.words_of_inputs = rows.words_of_inputs;
    part.words = reinterpret_cast<const uint32_t*>(data);
    part.scales = reinterpret_cast<const float*>(data + scales);
    if (!rows.group_of.empty()) {
      part.group_of = reinterpret_cast<const int32_t*>(data + group_of);
    }
    part.zeros = data + zeros;
    part.group_size = static_cast<int>(rows.group_size);
    part.outputs = outputs;
    part.in = in;
    return part;
  }

  int64_t lines;  // of words
  int64_t scales, group_of, zeros, bytes;
};

void* RowOf(void* w, int64_t row, int64_t in, ComputeType type) {
  return static_cast<uint8_t*>(w) + row * in * BytesOf(type);
}

}  // namespace

WeightLoader::~WeightLoader() {
  MutexLock lock(&mutex_);
  if (stream_ == nullptr) return;
  if (stored_ != nullptr) runtime_->Free(stored_, stream_).IgnoreError();
  ring_.reset();
  runtime_->DestroyStream(stream_).IgnoreError();
}

absl::Status WeightLoader::MakeRoom(int64_t bytes) {
  if (stream_ == nullptr) {
    QK_ASSIGN_OR_RETURN(stream_, runtime_->MakeStream());
  }
  if (ring_ != nullptr && bytes <= part_bytes_) return absl::OkStatus();
  ring_.reset();
  if (stored_ != nullptr) {
    QK_RETURN_IF_ERROR(
        runtime_->Free(std::exchange(stored_, nullptr), stream_));
  }
  part_bytes_ = std::max(least_, bytes);
  QK_ASSIGN_OR_RETURN(void* stored, runtime_->Allocate(part_bytes_, stream_));
  stored_ = static_cast<uint8_t*>(stored);
  QK_ASSIGN_OR_RETURN(ring_,
                      UploadRing::Make(runtime_.get(), stream_, part_bytes_));
  return absl::OkStatus();
}

template <typename Task>
void WeightLoader::Share(int64_t n, const Task& task) {
  const int64_t share = (n + pool_.size() - 1) / pool_.size();
  pool_.For(pool_.size(), [&](int64_t i, int) {
    const int64_t begin = std::min(n, i * share);
    const int64_t end = std::min(n, begin + share);
    if (begin < end) task(begin, end);
  });
}

absl::Status WeightLoader::LoadBlocks(const BlockRows& rows, int64_t out,
                                      int64_t in, ComputeType type, void* w) {
  QK_RETURN_IF_ERROR(MakeRoom(rows.row_bytes));
  const bool as_it_is = IsComputeType(rows.type, type);
  const int64_t step = part_bytes_ / std::max<int64_t>(rows.row_bytes, 1);
  for (int64_t row = 0; row < out; row += step) {
    const int64_t n = std::min(step, out - row);
    const int64_t bytes = n * rows.row_bytes;
    QK_ASSIGN_OR_RETURN(void* room, ring_->Room(bytes));
    Share(n, [&](int64_t begin, int64_t end) {
      rows.copy(row + begin, row + end,
                static_cast<uint8_t*>(room) + begin * rows.row_bytes);
    });
    void* const to = RowOf(w, row, in, type);
    QK_RETURN_IF_ERROR(ring_->Send(as_it_is ? to : stored_, bytes));
    if (as_it_is) continue;
    Dequantize(rows.type, stored_, n * in, type, to, stream_);
    QK_RETURN_IF_ERROR(runtime_->LaunchStatus());
  }
  return absl::OkStatus();
}

// A part has all inputs of some outputs.
absl::Status WeightLoader::LoadInt4(const Int4Rows& rows, int64_t out,
                                    int64_t in, ComputeType type, void* w) {
  const int64_t few = Int4Layout(rows, 8, in).bytes;
  const int64_t once = 4 * static_cast<int64_t>(rows.group_of.size());
  QK_RETURN_IF_ERROR(MakeRoom(few));
  const int64_t step = (part_bytes_ - once) / (few - once) * 8;
  for (int64_t row = 0; row < out; row += step) {
    const Range outputs = {static_cast<int>(row),
                           static_cast<int>(std::min(out, row + step))};
    QK_RETURN_IF_ERROR(LoadInt4Part(rows, outputs, static_cast<int>(in), type,
                                    RowOf(w, row, in, type)));
  }
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadInt4Part(const Int4Rows& rows, Range outputs,
                                        int in, ComputeType type, void* w) {
  const int64_t n = outputs.size();
  const Int4Layout layout(rows, n, in);
  QK_ASSIGN_OR_RETURN(void* room, ring_->Room(layout.bytes));
  auto* const data = static_cast<uint8_t*>(room);
  const auto range = [](int64_t begin, int64_t end) {
    return Range{static_cast<int>(begin), static_cast<int>(end)};
  };
  const int64_t line_bytes = in * n / 2 / layout.lines;
  Share(layout.lines, [&](int64_t begin, int64_t end) {
    rows.copy_words(outputs, range(begin, end),
                    reinterpret_cast<uint32_t*>(data + begin * line_bytes));
  });
  Share(rows.groups, [&](int64_t begin, int64_t end) {
    rows.read_groups(
        outputs, range(begin, end), data + layout.zeros + begin * n,
        reinterpret_cast<float*>(data + layout.scales) + begin * n);
  });
  std::copy(rows.group_of.begin(), rows.group_of.end(),
            reinterpret_cast<int32_t*>(data + layout.group_of));
  QK_RETURN_IF_ERROR(ring_->Send(stored_, layout.bytes));
  UnpackInt4(layout.At(stored_, rows, outputs.size(), in), type, w, stream_);
  return runtime_->LaunchStatus();
}

absl::Status WeightLoader::Load(const WeightRows& rows, int64_t out, int64_t in,
                                ComputeType type, void* w) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(runtime_->Use());
  absl::Status status;
  if (rows.int4) {
    status = LoadInt4(*rows.int4, out, in, type, w);
  } else if (rows.blocks) {
    status = LoadBlocks(*rows.blocks, out, in, type, w);
  } else {
    status = LoadBlocks(AsBlocks(rows.floats, in), out, in, type, w);
  }
  if (stream_ == nullptr) return status;
  const absl::Status waited = runtime_->WaitFor(stream_);
  return status.ok() ? waited : status;
}

}  // namespace qk::cuda
