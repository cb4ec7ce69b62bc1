#include "server/observe/device_metrics.h"

namespace qk {

std::vector<prometheus::MetricFamily> DeviceMetrics(
    const DeviceReading& reading, const std::string& device) {
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&](const char* name, const char* help, const auto& value) {
    if (!value.has_value()) return;
    prometheus::MetricFamily& family = families.emplace_back();
    family.name = name;
    family.help = help;
    family.type = prometheus::MetricType::Gauge;
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    metric.label = {{"device", device}};
    metric.gauge.value = static_cast<double>(*value);
  };
  add("qkscope_device_memory_used_bytes",
      "Memory of the GPU that all processes and the driver hold, bytes.",
      reading.memory_used_bytes);
  add("qkscope_device_memory_bytes", "Memory of the GPU, bytes.",
      reading.memory_total_bytes);
  add("qkscope_device_utilization_ratio",
      "Part of the last sample period in which a kernel ran on the GPU, 0 to "
      "1.",
      reading.utilization);
  add("qkscope_device_temperature_celsius", "Temperature of the GPU, Celsius.",
      reading.temperature_celsius);
  add("qkscope_device_power_watts", "Power that the GPU draws, watts.",
      reading.power_watts);
  return families;
}

}  // namespace qk
