// Holds a thread at a delay point of the server in this process, and counts the
// threads that reach each point.
#ifndef QKSCOPE_TESTS_SERVER_COMMON_DELAY_TRAP_H_
#define QKSCOPE_TESTS_SERVER_COMMON_DELAY_TRAP_H_

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "server/common/delay_point.h"

namespace qk::testing {

// One may exist at a time. No thread may be at a point when it is destroyed.
class DelayTrap {
 public:
  // Holds the first thread that reaches each of `points`.
  explicit DelayTrap(std::set<std::string> points) : held_(std::move(points)) {
    trap_ = this;
    delay_hook = &Hook;
  }
  ~DelayTrap() {
    delay_hook = nullptr;
    trap_ = nullptr;
  }
  DelayTrap(const DelayTrap&) = delete;
  DelayTrap& operator=(const DelayTrap&) = delete;

  void Release(const std::string& point) {
    std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(point);
    changed_.notify_all();
  }
  void ReleaseAll() {
    std::lock_guard<std::mutex> lock(mutex_);
    held_.clear();
    changed_.notify_all();
  }
  // Returns whether a thread has reached the point by now.
  bool Reached(const std::string& point) {
    std::lock_guard<std::mutex> lock(mutex_);
    return hits_[point] > 0;
  }
  // Returns whether a thread is held there.
  bool Holds(const std::string& point) {
    std::lock_guard<std::mutex> lock(mutex_);
    return hits_[point] > 0 && held_.contains(point);
  }

 private:
  static void Hook(const char* point) { trap_->Come(point); }
  void Come(const std::string& point) {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool first = ++hits_[point] == 1;
    changed_.notify_all();
    if (first) {
      changed_.wait(lock, [&] { return !held_.contains(point); });
    }
  }

  static inline DelayTrap* trap_ = nullptr;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> held_;
  std::map<std::string, int> hits_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_COMMON_DELAY_TRAP_H_
