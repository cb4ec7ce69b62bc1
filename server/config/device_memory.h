// How much of a device's memory the server may hold.
#ifndef QKSCOPE_SERVER_CONFIG_DEVICE_MEMORY_H_
#define QKSCOPE_SERVER_CONFIG_DEVICE_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// One of the two is set, or neither: all that is free.
struct DeviceMemory {
  int64_t bytes = 0;
  double part = 0;  // of all that the device has, in (0, 1]
};

// "0.5" is a part; "40GiB", "512MiB" and "42949672960" are bytes.
// INVALID_ARGUMENT: `must be a part in (0, 1] or bytes (40GiB), got '..'`.
absl::StatusOr<DeviceMemory> ParseDeviceMemory(absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONFIG_DEVICE_MEMORY_H_
