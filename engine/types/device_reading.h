// What a device says of itself at one moment.
#ifndef QKSCOPE_ENGINE_TYPES_DEVICE_READING_H_
#define QKSCOPE_ENGINE_TYPES_DEVICE_READING_H_

#include <cstdint>
#include <optional>
#include <string>

namespace qk {

// Without a value is what the device does not have, or may not tell this user.
struct DeviceReading {
  // Of all processes, with what the driver keeps for itself.
  std::optional<int64_t> memory_used_bytes;
  std::optional<int64_t> memory_total_bytes;
  // The part of the last sample period (1/6 s to 1 s) in which a kernel ran: 0
  // to 1.
  std::optional<double> utilization;
  std::optional<double> temperature_celsius;
  std::optional<double> power_watts;
  std::optional<std::string> driver_version;  // "580.65.06"
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_DEVICE_READING_H_
