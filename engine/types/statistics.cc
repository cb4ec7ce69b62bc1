#include "engine/types/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/base/check.h"
#include "engine/types/results.h"

namespace qk {
namespace {

std::optional<int> FrequencyIndex(int dim, size_t frequencies) {
  const int half = static_cast<int>(frequencies);
  if (dim >= 2 * half) return std::nullopt;
  return dim % half;
}

MassiveEntry MakeEntry(int head, int dim, float norm, double mean,
                       absl::Span<const double> wavelengths) {
  MassiveEntry entry;
  entry.head = head;
  entry.dim = dim;
  entry.norm = norm;
  entry.ratio = mean > 0 ? static_cast<float>(norm / mean) : 0.0f;
  if (!wavelengths.empty()) {
    const std::optional<int> index = FrequencyIndex(dim, wavelengths.size());
    if (index.has_value()) entry.wavelength = wavelengths[*index];
  }
  return entry;
}

// Returns the mean of the finite entries, 0 if there is none.
double FiniteMean(absl::Span<const float> row, int64_t* non_finite) {
  double sum = 0;
  int finite = 0;
  for (float x : row) {
    if (std::isfinite(x)) {
      sum += x;
      ++finite;
    } else {
      ++*non_finite;
    }
  }
  return finite == 0 ? 0.0 : sum / finite;
}

void SetTopDim(const std::vector<int>& per_dim, Statistics* s) {
  if (s->massive_count == 0) return;
  const auto top = std::max_element(per_dim.begin(), per_dim.end());
  s->top_dim = static_cast<int>(top - per_dim.begin());
  s->top_dim_share =
      static_cast<float>(*top) / static_cast<float>(s->massive_count);
}

void SetLowFrequencyShare(const std::vector<int>& per_dim, size_t frequencies,
                          Statistics* s) {
  if (frequencies == 0) return;
  int rotated = 0;
  int low = 0;
  for (size_t d = 0; d < per_dim.size(); ++d) {
    const std::optional<int> index =
        FrequencyIndex(static_cast<int>(d), frequencies);
    if (!index.has_value()) continue;
    rotated += per_dim[d];
    if (2 * static_cast<size_t>(*index) >= frequencies) low += per_dim[d];
  }
  if (rotated == 0) return;
  s->low_frequency_share =
      static_cast<float>(low) / static_cast<float>(rotated);
}

}  // namespace

Statistics ComputeStatistics(absl::Span<const float> norms, int heads,
                             int head_dim, absl::Span<const int> head_ids,
                             absl::Span<const double> wavelengths,
                             double lambda, int top_n) {
  QK_CHECK(norms.size() == static_cast<size_t>(heads) * head_dim);
  Statistics s;
  std::vector<int> per_dim(head_dim, 0);
  std::vector<MassiveEntry> massive;
  bool any = false;
  for (int h = 0; h < heads; ++h) {
    const absl::Span<const float> row =
        norms.subspan(static_cast<size_t>(h) * head_dim, head_dim);
    const double mean = FiniteMean(row, &s.non_finite_count);
    const int id = head_ids.empty() ? h : head_ids[h];
    for (int d = 0; d < head_dim; ++d) {
      if (!std::isfinite(row[d])) continue;
      const MassiveEntry entry = MakeEntry(id, d, row[d], mean, wavelengths);
      s.max = std::max(s.max, row[d]);
      if (!any || entry.ratio > s.largest.ratio) s.largest = entry;
      any = true;
      if (mean <= 0 || !(row[d] > lambda * mean)) continue;
      ++per_dim[d];
      massive.push_back(entry);
    }
  }
  if (!any && !norms.empty()) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    s.max = s.largest.norm = s.largest.ratio = nan;
  }
  s.ratio = s.largest.ratio;
  s.massive_count = static_cast<int>(massive.size());
  SetTopDim(per_dim, &s);
  SetLowFrequencyShare(per_dim, wavelengths.size(), &s);
  std::stable_sort(massive.begin(), massive.end(),
                   [](const MassiveEntry& a, const MassiveEntry& b) {
                     return a.ratio > b.ratio;
                   });
  if (static_cast<int>(massive.size()) > top_n) massive.resize(top_n);
  s.top = std::move(massive);
  return s;
}

void LayerFrame::ComputeStatistics() {
  if (!statistics_inputs.has_value()) return;
  const auto* norms = reinterpret_cast<const float*>(data.data());
  statistics = qk::ComputeStatistics(
      {norms, data.size() / sizeof(float)}, shape[0], shape[1], heads,
      statistics_inputs->wavelengths, statistics_inputs->lambda,
      statistics_inputs->top_n);
}

}  // namespace qk
