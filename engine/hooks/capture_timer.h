// Shares the time that an op over several captures takes among them.
#ifndef QKSCOPE_ENGINE_HOOKS_CAPTURE_TIMER_H_
#define QKSCOPE_ENGINE_HOOKS_CAPTURE_TIMER_H_

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/hooks/capture.h"

namespace qk {

class CaptureTimer {
 public:
  // `size`: any measure of the capture's part of the work.
  void Add(Capture* capture, int64_t size) {
    parts_.emplace_back(capture, size);
    all_ += size;
  }
  bool empty() const { return all_ == 0; }
  // Charges the time since the timer was made.
  void Charge() const {
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start_;
    for (const auto& [capture, size] : parts_) {
      capture->Charge(seconds.count() * static_cast<double>(size) /
                      static_cast<double>(all_));
    }
  }

 private:
  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  std::vector<std::pair<Capture*, int64_t>> parts_;
  int64_t all_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_CAPTURE_TIMER_H_
