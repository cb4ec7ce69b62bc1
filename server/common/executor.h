// A few threads that run closures. Streams are encoded and written on them, so
// that neither the device's thread nor gRPC's pollers have to do it.
#ifndef QKSCOPE_SERVER_COMMON_EXECUTOR_H_
#define QKSCOPE_SERVER_COMMON_EXECUTOR_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qk {

class Executor {
 public:
  explicit Executor(int threads);
  // Runs the tasks that were posted, then joins the threads.
  ~Executor();

  // May be called on any thread. Tasks start in the order of posting, and run
  // on several threads at once.
  void Post(std::function<void()> task);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_EXECUTOR_H_
