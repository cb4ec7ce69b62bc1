// What a device says of itself, for Prometheus.
#ifndef QKSCOPE_SERVER_OBSERVE_DEVICE_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_DEVICE_METRICS_H_

#include <string>
#include <vector>

#include "engine/types/device_reading.h"
#include "prometheus/metric_family.h"

namespace qk {

// A gauge for each value that there is, with the label `device`.
std::vector<prometheus::MetricFamily> DeviceMetrics(
    const DeviceReading& reading, const std::string& device);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_DEVICE_METRICS_H_
