#include <algorithm>
#include <cstring>

#include "engine/base/half.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {

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

void ExpandHeads(absl::Span<const ExpandJob> jobs) {
  for (const ExpandJob& job : jobs) {
    const HeadRows& x = job.x;
    const int group = job.to_heads / x.heads;
    float* out = job.to;
    for (int row = 0; row < x.rows; ++row) {
      for (int h = 0; h < job.to_heads; ++h) {
        out = std::copy_n(HeadOf(x, row, h / group), x.head_dim, out);
      }
    }
  }
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

void CopyOut(absl::Span<const CopyOutJob> jobs) {
  for (const CopyOutJob& job : jobs) {
    void* out = job.to;
    for (int i = 0; i < job.rows.count; ++i) {
      for (int h = 0; h < job.heads.count; ++h) {
        out = CopyAs(HeadOf(job.x, RowAt(job.rows, i), HeadAt(job.heads, h)),
                     job.x.head_dim, job.dtype, out);
      }
    }
  }
}

}  // namespace qk::cpu
