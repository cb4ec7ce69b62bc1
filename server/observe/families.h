// Small helpers that make families of metrics: registered ones, which count by
// themselves, and those that are made anew for each scrape.
#ifndef QKSCOPE_SERVER_OBSERVE_FAMILIES_H_
#define QKSCOPE_SERVER_OBSERVE_FAMILIES_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"

namespace qk {

// The label of what has no series of its own.
inline constexpr char kOther[] = "other";
// Number of models that get their own label; the names that come first.
inline constexpr size_t kMaxModels = 50;

using CounterFamily = prometheus::Family<prometheus::Counter>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

inline CounterFamily& AddCounters(prometheus::Registry* registry,
                                  const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
}

inline HistogramFamily& AddHistograms(prometheus::Registry* registry,
                                      const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
}

// A family without samples.
prometheus::MetricFamily EmptyFamily(const char* name, const char* help,
                                     prometheus::MetricType type);

// Adds a sample of a gauge or a counter, whichever the family is.
using Label = prometheus::ClientMetric::Label;
void AddSample(std::vector<Label> labels, double value,
               prometheus::MetricFamily* family);

// A family with one sample that has no labels.
prometheus::MetricFamily OneGauge(const char* name, const char* help,
                                  double value);
prometheus::MetricFamily OneCounter(const char* name, const char* help,
                                    double value);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_FAMILIES_H_
