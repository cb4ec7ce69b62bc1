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

void ReplaceDims(const DisruptionRule& rule, const Choice& choice,
                 absl::Span<const int> rows, const HeadRows& x) {
  const int n = x.heads * x.head_dim;
  const bool scale = rule.replace == DisruptionRule::Replace::kScale;
  for (int row : rows) {
    float* v = x.data + static_cast<int64_t>(row) * n;
    for (int i = 0; i < n; ++i) {
      if (!choice.mask[i]) continue;
      v[i] = scale ? static_cast<float>(v[i] * rule.factor) : choice.values[i];
    }
  }
}

void ExpandHeads(const HeadRows& x, int to_heads, float* out) {
  const int group = to_heads / x.heads;
  for (int row = 0; row < x.rows; ++row) {
    for (int h = 0; h < to_heads; ++h) {
      const int64_t source = static_cast<int64_t>(row) * x.heads + h / group;
      std::copy_n(x.data + source * x.head_dim, x.head_dim, out);
      out += x.head_dim;
    }
  }
}

void CopyOut(const HeadRows& x, absl::Span<const int> rows,
             absl::Span<const int> heads, RawDtype dtype, void* out) {
  float* f32 = static_cast<float*>(out);
  uint16_t* half = static_cast<uint16_t*>(out);
  for (int row : rows) {
    for (int head : heads) {
      const float* v =
          x.data + (static_cast<int64_t>(row) * x.heads + head) * x.head_dim;
      switch (dtype) {
        case RawDtype::kF32:
          f32 = std::copy_n(v, x.head_dim, f32);
          break;
        case RawDtype::kF16:
          for (int i = 0; i < x.head_dim; ++i) *half++ = RoundToF16(v[i]);
          break;
        case RawDtype::kBF16:
          for (int i = 0; i < x.head_dim; ++i) *half++ = RoundToBF16(v[i]);
          break;
      }
    }
  }
}

}  // namespace qk::cpu
