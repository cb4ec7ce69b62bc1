#include "server/observe/pass_metrics.h"

#include <algorithm>

#include "server/observe/families.h"

namespace qk {
namespace {

using prometheus::Histogram;

Histogram::BucketBoundaries Seconds() {
  return {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10};
}

Histogram::BucketBoundaries PowersOfFour() {
  return {1, 4, 16, 64, 256, 1024, 4096};
}

Histogram::BucketBoundaries Ratios() {
  return {0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 1};
}

Histogram& Add(prometheus::Registry* registry, const char* name,
               const char* help, const Histogram::BucketBoundaries& buckets) {
  return AddHistograms(registry, name, help).Add({}, buckets);
}

}  // namespace

PassMetrics::PassMetrics(prometheus::Registry* registry)
    : rows_(Add(registry, "qkscope_pass_rows",
                "Rows (tokens of all sequences) of a forward pass.",
                PowersOfFour())),
      sequences_(Add(registry, "qkscope_pass_sequences",
                     "Sequences of a forward pass; each arm of a request is "
                     "one.",
                     PowersOfFour())),
      duration_(Add(registry, "qkscope_pass_duration_seconds",
                    "The device's time in a forward pass, in seconds.",
                    Seconds())),
      fill_(Add(registry, "qkscope_pass_fill_ratio",
                "Rows of a forward pass, as a part of the rows that it could "
                "have had if more work had waited for the same model: the "
                "batch fill, 0 to 1.",
                Ratios())),
      cancel_to_idle_(Add(registry, "qkscope_cancel_to_idle_seconds",
                          "Time from a request's cancellation until its "
                          "memory is free, in seconds.",
                          Seconds())) {}

void PassMetrics::Observe(const PassReport& pass) {
  rows_.Observe(pass.rows);
  sequences_.Observe(pass.sequences);
  duration_.Observe(pass.seconds);
  fill_.Observe(static_cast<double>(pass.rows) / std::max(1, pass.most_rows));
}

}  // namespace qk
