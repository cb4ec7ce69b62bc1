// A few threads that run closures. Streams are encoded and written on them, so
// that neither the device's thread nor gRPC's pollers have to do it.
#ifndef QKSCOPE_SERVER_COMMON_EXECUTOR_H_
#define QKSCOPE_SERVER_COMMON_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/base/mutex.h"

namespace qk {

class Executor {
 public:
  // `on_exception` gets what a task throws, as a status; nullptr: nobody does.
  // The thread goes on. Must not throw.
  using OnException = std::function<void(const absl::Status&)>;
  explicit Executor(int threads, OnException on_exception = nullptr);
  // Runs the tasks that were posted, then joins the threads.
  ~Executor();

  // May be called on any thread. Tasks start in the order of posting, and run
  // on several threads at once.
  void Post(std::function<void()> task);

 private:
  void Loop();
  void Stop();

  const OnException on_exception_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_EXECUTOR_H_
