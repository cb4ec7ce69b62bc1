// A fixed set of threads that runs loops for one caller at a time.
#ifndef QKSCOPE_ENGINE_BASE_THREAD_POOL_H_
#define QKSCOPE_ENGINE_BASE_THREAD_POOL_H_

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
  // `threads` must be at least 1; it includes the caller's own.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(parts_.size()); }

  // Runs task(i, thread) for each i in [0, n); `thread` is in [0, size()).
  // A thread begins at PartBegin, so that it finds in its caches what it wrote
  // in the loop before, and goes on in ascending order. Whoever comes to the
  // next thread's part helps there. Returns when all tasks are done. Calls from
  // different threads wait for each other. The call rethrows the first
  // exception of a task, once all tasks have ended.
  void For(int64_t n, const std::function<void(int64_t, int)>& task);

  // Where a thread's part of a loop of n tasks begins; `thread` may be size().
  int64_t PartBegin(int64_t n, int thread) const { return n * thread / size(); }

 private:
  void Stop();
  void Work(int thread);
  // Runs the tasks that are left in the current loop, first those of the
  // thread's part.
  void RunTasks(int thread);
  // Runs one task, and keeps the first exception in error_.
  void RunTask(int64_t task, int thread);
  // Takes the next task of a thread's part of the current loop. False: none is
  // left there.
  bool Claim(int thread, int64_t* task);

  Mutex caller_mutex_;  // one loop at a time
  Mutex mutex_;
  CondVar wake_;
  // A thread's part of the current loop. The upper bits hold the loop's number,
  // the lower ones the number of tasks not yet taken. A loop's caller waits for
  // every task taken from it, so count_ and task_ are still that loop's. A
  // thread that wakes late finds nothing to take and delays nobody.
  struct alignas(64) Part {
    std::atomic<uint64_t> left{0};
  };
  std::vector<Part> parts_;        // one per thread
  std::atomic<uint64_t> loop_{0};  // the number of the newest loop
  std::atomic<int64_t> finished_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<const std::function<void(int64_t, int)>*> task_{nullptr};
  std::exception_ptr error_ ABSL_GUARDED_BY(mutex_);  // the current loop's
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_THREAD_POOL_H_
