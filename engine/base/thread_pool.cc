#include "engine/base/thread_pool.h"

#include <utility>

#include "engine/base/check.h"

namespace qk {
namespace {

// A pass's loops follow each other within microseconds, so a worker looks for
// the next loop for about this many pauses before it sleeps.
constexpr int kSpins = 4000;

constexpr uint64_t kMaxTasks = uint64_t{1} << 32;

// Tells the processor that this thread is waiting for memory to change.
inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i] { Work(i); });
    }
  } catch (...) {
    // The system has no more threads.
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::For(int64_t n, const std::function<void(int64_t, int)>& task) {
  if (n <= 0) return;
  QK_CHECK(n < static_cast<int64_t>(kMaxTasks));
  MutexLock caller(&caller_mutex_);
  if (n == 1 || workers_.empty()) {
    for (int64_t i = 0; i < n; ++i) task(i, 0);
    return;
  }
  count_ = n;
  task_ = &task;
  finished_ = 0;
  {
    MutexLock lock(&mutex_);
    left_ = (left_ / kMaxTasks + 1) * kMaxTasks + static_cast<uint64_t>(n);
  }
  wake_.NotifyAll();
  RunTasks(0);
  for (int spins = 0; finished_ != n; ++spins) {
    if (spins < kSpins) {
      CpuRelax();
    } else {
      std::this_thread::yield();
    }
  }
  std::exception_ptr error;
  {
    MutexLock lock(&mutex_);
    error = std::exchange(error_, nullptr);
  }
  if (error != nullptr) std::rethrow_exception(error);
}

bool ThreadPool::Claim(int64_t* task) {
  uint64_t left = left_;
  do {
    if (left % kMaxTasks == 0) return false;
  } while (!left_.compare_exchange_weak(left, left - 1));
  *task = count_ - static_cast<int64_t>(left % kMaxTasks);
  return true;
}

void ThreadPool::RunTasks(int thread) {
  int64_t i = 0;
  while (Claim(&i)) {
    RunTask(i, thread);
    ++finished_;
  }
}

void ThreadPool::RunTask(int64_t task, int thread) {
  try {
    (*task_)(task, thread);
  } catch (...) {
    // If it went on, it would end the process on a worker's thread; on the
    // caller's thread it would destroy `task` while workers still use it.
    MutexLock lock(&mutex_);
    if (error_ == nullptr) error_ = std::current_exception();
  }
}

void ThreadPool::Work(int thread) {
  const auto has_work = [this] { return stop_ || left_ % kMaxTasks != 0; };
  while (true) {
    for (int spins = 0; spins < kSpins && !has_work(); ++spins) CpuRelax();
    if (!has_work()) {
      MutexLock lock(&mutex_);
      wake_.Wait(&mutex_, has_work);
    }
    if (stop_) return;
    RunTasks(thread);
  }
}

}  // namespace qk
