// The metrics of the process that Prometheus's client libraries agree on. They
// are read from /proc/self and from system calls, which a sandbox without the
// rest of /proc allows; what cannot be read is left out.
#ifndef QKSCOPE_SERVER_OBSERVE_PROCESS_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_PROCESS_METRICS_H_

#include <optional>
#include <string>
#include <vector>

#include "prometheus/metric_family.h"

namespace qk {

class ProcessMetrics {
 public:
  // `proc`: the process's folder; another one in tests.
  explicit ProcessMetrics(std::string proc = "/proc/self");

  // Thread-safe.
  std::vector<prometheus::MetricFamily> Collect() const;

 private:
  const std::string proc_;
  // Unix time. Found once, so that it stays the same if the clock is set.
  const std::optional<double> start_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_PROCESS_METRICS_H_
