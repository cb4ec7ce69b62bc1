#include "server/observe/activation_pattern.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace qk {

std::optional<ActivationMatrix> ActivationMatrixOf(HookPoint point) {
  switch (point) {
    case HookPoint::kRotQ:
      return ActivationMatrix::kQAfter;
    case HookPoint::kRotK:
      return ActivationMatrix::kKAfter;
    case HookPoint::kV:
      return ActivationMatrix::kV;
    case HookPoint::kQ:
      return ActivationMatrix::kQBefore;
    case HookPoint::kK:
      return ActivationMatrix::kKBefore;
    case HookPoint::kZ:
    case HookPoint::kPattern:
      break;
  }
  return std::nullopt;
}

std::optional<std::vector<float>> PatternOf(absl::Span<const float> norms,
                                            int heads, int head_dim) {
  QK_CHECK(norms.size() == static_cast<size_t>(heads) * head_dim);
  std::vector<float> out(norms.size());
  for (int h = 0; h < heads; ++h) {
    const size_t begin = static_cast<size_t>(h) * head_dim;
    double sum = 0;
    for (int d = 0; d < head_dim; ++d) sum += norms[begin + d];
    if (!std::isfinite(sum) || sum <= 0) return std::nullopt;
    const double factor = head_dim / sum;
    for (int d = 0; d < head_dim; ++d) {
      out[begin + d] = static_cast<float>(norms[begin + d] * factor);
    }
  }
  return out;
}

std::optional<std::vector<float>> PatternOf(const LayerFrame& frame) {
  const auto* norms = reinterpret_cast<const float*>(frame.data.data());
  return PatternOf({norms, frame.data.size() / sizeof(float)}, frame.shape[0],
                   frame.shape[1]);
}

double DriftBetween(absl::Span<const float> a, absl::Span<const float> b) {
  QK_CHECK(a.size() == b.size());
  double product = 0, a_squares = 0, b_squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * b[i];
    a_squares += static_cast<double>(a[i]) * a[i];
    b_squares += static_cast<double>(b[i]) * b[i];
  }
  // Rounding must not make it negative.
  return std::max(0.0, 1 - product / std::sqrt(a_squares * b_squares));
}

void MeanPatterns::Add(const ActivationPlace& place,
                       const std::vector<int>& shape,
                       absl::Span<const float> pattern) {
  Mean& mean = means_[place];
  if (mean.prompts == 0) {
    mean.shape = shape;
    mean.values.assign(pattern.size(), 0.0f);
  }
  QK_CHECK(mean.shape == shape);
  const double part = 1.0 / static_cast<double>(++mean.prompts);
  for (size_t i = 0; i < pattern.size(); ++i) {
    const double old = mean.values[i];
    mean.values[i] = static_cast<float>(old + (pattern[i] - old) * part);
  }
}

const MeanPatterns::Mean* MeanPatterns::Find(
    const ActivationPlace& place) const {
  const auto it = means_.find(place);
  return it == means_.end() ? nullptr : &it->second;
}

int64_t MeanPatterns::prompts() const {
  int64_t most = 0;
  for (const auto& [place, mean] : means_) most = std::max(most, mean.prompts);
  return most;
}

int64_t MeanPatterns::bytes() const {
  int64_t bytes = 0;
  for (const auto& [place, mean] : means_) {
    bytes += static_cast<int64_t>(sizeof(place) + sizeof(mean) +
                                  mean.values.size() * sizeof(float));
  }
  return bytes;
}

}  // namespace qk
