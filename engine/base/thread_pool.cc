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

ThreadPool::ThreadPool(int threads) : parts_(threads) {
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
    const uint64_t loop = loop_ + 1;
    for (int t = 0; t < size(); ++t) {
      const int64_t part = PartBegin(n, t + 1) - PartBegin(n, t);
      parts_[t].left = loop * kMaxTasks + static_cast<uint64_t>(part);
    }
    loop_ = loop;
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

bool ThreadPool::Claim(int thread, int64_t* task) {
  std::atomic<uint64_t>& of_thread = parts_[thread].left;
  uint64_t left = of_thread;
  do {
    if (left % kMaxTasks == 0) return false;
  } while (!of_thread.compare_exchange_weak(left, left - 1));
  *task =
      PartBegin(count_, thread + 1) - static_cast<int64_t>(left % kMaxTasks);
  return true;
}

void ThreadPool::RunTasks(int thread) {
  int64_t ran = 0;
  for (int t = 0; t < size(); ++t) {
    for (int64_t i = 0; Claim((thread + t) % size(), &i); ++ran) {
      RunTask(i, thread);
    }
  }
  if (ran > 0) finished_ += ran;
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
  uint64_t seen = 0;
  const auto has_work = [&] { return stop_ || loop_ != seen; };
  while (true) {
    for (int spins = 0; spins < kSpins && !has_work(); ++spins) CpuRelax();
    if (!has_work()) {
      MutexLock lock(&mutex_);
      wake_.Wait(&mutex_, has_work);
    }
    if (stop_) return;
    seen = loop_;
    RunTasks(thread);
  }
}

}  // namespace qk
