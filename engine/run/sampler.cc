#include "engine/run/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/base/philox.h"

namespace qk {

int32_t Sample(absl::Span<const float> logits, const SamplingSpec& sampling,
               int step) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) ids.push_back(static_cast<int32_t>(i));
  }
  if (ids.empty()) return 0;
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < ids.size()) {
    ids.resize(sampling.top_k);
  }
  std::vector<double> weights(ids.size());
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    weights[i] = std::exp((double{logits[ids[i]]} - logits[ids[0]]) /
                          sampling.temperature);
    sum += weights[i];
  }
  // Keeps the fewest ids whose share reaches top_p.
  double kept = 0;
  size_t n = 0;
  while (n < ids.size() && (n == 0 || kept < sampling.top_p * sum)) {
    kept += weights[n++];
  }
  PhiloxStream random(sampling.seed, RandomPurpose::kSampling, 0, 0, 0,
                      static_cast<uint32_t>(step));
  double left = random.Uniform() * kept;
  for (size_t i = 0; i + 1 < n; ++i) {
    left -= weights[i];
    if (left < 0) return ids[i];
  }
  return ids[n - 1];
}

}  // namespace qk
