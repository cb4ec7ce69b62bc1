#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/base/half.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// The number of rows per task.
constexpr int kRows = 32;

}  // namespace

void Embed(const void* table, ComputeType type,
           absl::Span<const int32_t> tokens, int hidden, float* out) {
  for (int32_t token : tokens) {
    const int64_t offset = int64_t{token} * hidden;
    if (type == ComputeType::kF32) {
      std::copy_n(static_cast<const float*>(table) + offset, hidden, out);
    } else {
      const uint16_t* row = static_cast<const uint16_t*>(table) + offset;
      for (int i = 0; i < hidden; ++i) out[i] = FromBF16(row[i]);
    }
    out += hidden;
  }
}

void FillTable(const RowReader& rows, int64_t n, int64_t width,
               ComputeType type, void* table, ThreadPool& pool) {
  pool.For((n + kRows - 1) / kRows, [&](int64_t i, int) {
    const int64_t begin = i * kRows;
    const int64_t end = std::min<int64_t>(n, begin + kRows);
    if (type == ComputeType::kF32) {
      rows(begin, end, static_cast<float*>(table) + begin * width);
      return;
    }
    std::vector<float> values((end - begin) * width);
    rows(begin, end, values.data());
    std::transform(values.begin(), values.end(),
                   static_cast<uint16_t*>(table) + begin * width, RoundToBF16);
  });
}

void ExpandHeads(absl::Span<const ExpandJob> jobs, ThreadPool& pool) {
  ForItems(
      jobs, pool, kRows, [](const ExpandJob& job) { return job.x.rows; },
      [](const ExpandJob& job, int64_t begin, int64_t end) {
        const HeadRows& x = job.x;
        const int group = job.to_heads / x.heads;
        float* out = job.to + begin * job.to_heads * x.head_dim;
        for (int64_t row = begin; row < end; ++row) {
          for (int h = 0; h < job.to_heads; ++h) {
            out = std::copy_n(HeadOf(x, row, h / group), x.head_dim, out);
          }
        }
      });
}

void Copy(absl::Span<const CopyJob> jobs, ThreadPool& pool) {
  constexpr int64_t kBytes = int64_t{64} << 10;
  ForItems(
      jobs, pool, kBytes, [](const CopyJob& job) { return job.bytes; },
      [](const CopyJob& job, int64_t begin, int64_t end) {
        std::memcpy(static_cast<uint8_t*>(job.to) + begin,
                    static_cast<const uint8_t*>(job.from) + begin, end - begin);
      });
}

namespace {

// Copies one head's values to `to` as `dtype`; returns the end of the copy.
void* CopyAs(const float* v, int n, RawDtype dtype, void* to) {
  uint16_t* half = static_cast<uint16_t*>(to);
  switch (dtype) {
    case RawDtype::kF32:
      return std::copy_n(v, n, static_cast<float*>(to));
    case RawDtype::kF16:
      for (int i = 0; i < n; ++i) half[i] = RoundToF16(v[i]);
      break;
    case RawDtype::kBF16:
      for (int i = 0; i < n; ++i) half[i] = RoundToBF16(v[i]);
      break;
  }
  return half + n;
}

}  // namespace

void CopyOut(absl::Span<const CopyOutJob> jobs, ThreadPool& pool) {
  ForItems(
      jobs, pool, kRows, [](const CopyOutJob& job) { return job.rows.count; },
      [](const CopyOutJob& job, int64_t begin, int64_t end) {
        const int64_t bytes = int64_t{job.heads.count} * job.x.head_dim *
                              (job.dtype == RawDtype::kF32 ? 4 : 2);
        void* out = static_cast<uint8_t*>(job.to) + begin * bytes;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = RowAt(job.rows, static_cast<int>(i));
          for (int h = 0; h < job.heads.count; ++h) {
            out = CopyAs(HeadOf(job.x, row, HeadAt(job.heads, h)),
                         job.x.head_dim, job.dtype, out);
          }
        }
      });
}

}  // namespace qk::cpu
