// Looks at how runs end, and tells once when the device is gone.
#ifndef QKSCOPE_SERVER_DEVICE_WATCH_H_
#define QKSCOPE_SERVER_DEVICE_WATCH_H_

#include <functional>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "engine/device_lost.h"

namespace qk {

// Thread-safe.
class DeviceWatch {
 public:
  // `on_lost` is called on whatever thread learns of it, maybe under a call's
  // lock: it may neither wait nor end calls.
  explicit DeviceWatch(std::function<void(const absl::Status&)> on_lost)
      : on_lost_(std::move(on_lost)) {}

  void Look(const absl::Status& end) {
    if (end.ok() || !IsDeviceLost(end)) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (on_lost_ != nullptr) std::exchange(on_lost_, nullptr)(end);
  }
  // Nobody is told any more.
  void Close() {
    std::lock_guard<std::mutex> lock(mutex_);
    on_lost_ = nullptr;
  }

 private:
  std::mutex mutex_;
  std::function<void(const absl::Status&)> on_lost_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_DEVICE_WATCH_H_
