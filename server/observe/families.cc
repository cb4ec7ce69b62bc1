#include "server/observe/families.h"

namespace qk {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily EmptyFamily(const char* name, const char* help, MetricType type) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void AddSample(std::vector<Label> labels, double value, MetricFamily* family) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  metric.label = std::move(labels);
  if (family->type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

MetricFamily OneGauge(const char* name, const char* help, double value) {
  MetricFamily family = EmptyFamily(name, help, MetricType::Gauge);
  AddSample({}, value, &family);
  return family;
}

MetricFamily OneCounter(const char* name, const char* help, double value) {
  MetricFamily family = EmptyFamily(name, help, MetricType::Counter);
  AddSample({}, value, &family);
  return family;
}

}  // namespace qk
