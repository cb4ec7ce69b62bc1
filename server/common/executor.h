// A few threads that run closures. Streams are written here, so that neither
// the device's thread nor gRPC's pollers do the work of encoding.
#ifndef QKSCOPE_SERVER_COMMON_EXECUTOR_H_
#define QKSCOPE_SERVER_COMMON_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk {

class Executor {
 public:
  explicit Executor(int threads);
  // Runs what was posted, then joins.
  ~Executor();

  // Any thread. Tasks run in order of posting, on several threads at once.
  void Post(std::function<void()> task);

 private:
  void Loop();

  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_EXECUTOR_H_
