// The error of a device that has gone for good (a driver that fell over, a card
// off the bus). A backend returns it from Synchronize, and from then on from
// everything that has a status; nothing but a new process helps.
#ifndef QKSCOPE_ENGINE_DEVICE_LOST_H_
#define QKSCOPE_ENGINE_DEVICE_LOST_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace qk {

inline constexpr char kDeviceLostUrl[] = "qkscope/device_lost";

// UNAVAILABLE, which IsDeviceLost tells from others of that code.
inline absl::Status DeviceLostError(absl::string_view message) {
  absl::Status status = absl::UnavailableError(message);
  status.SetPayload(kDeviceLostUrl, absl::Cord());
  return status;
}

inline bool IsDeviceLost(const absl::Status& status) {
  return status.GetPayload(kDeviceLostUrl).has_value();
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_DEVICE_LOST_H_
