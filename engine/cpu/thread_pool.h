// A fixed set of threads that run loops for one caller at a time.
#ifndef QKSCOPE_ENGINE_CPU_THREAD_POOL_H_
#define QKSCOPE_ENGINE_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk {

class ThreadPool {
 public:
  // `threads` >= 1, the caller's own included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs task(i, thread) for i in [0, n), handed out in ascending order;
  // `thread` in [0, size()). Returns when all are done. Calls from different
  // threads wait for each other. The first exception of a task comes out here,
  // once all have ended.
  void For(int64_t n, const std::function<void(int64_t, int)>& task);

 private:
  void Work(int thread);
  // Runs what is left of the present loop.
  void RunTasks(int thread);
  // One task; keeps what it throws.
  void RunTask(int64_t task, int thread);
  // Takes the next task of whatever loop is running: false if none is left.
  bool Claim(int64_t* task);

  Mutex caller_mutex_;  // one loop at a time
  Mutex mutex_;
  CondVar wake_;
  // Loop number above, tasks not yet taken below. A task taken here belongs to
  // a loop whose caller waits for it, so count_ and task_ are that loop's; a
  // thread that wakes late finds nothing to take and holds nobody up.
  std::atomic<uint64_t> left_{0};
  std::atomic<int64_t> finished_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<const std::function<void(int64_t, int)>*> task_{nullptr};
  std::exception_ptr error_ ABSL_GUARDED_BY(mutex_);  // of the present loop
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CPU_THREAD_POOL_H_
