#include "engine/cpu/thread_pool.h"

namespace qk {
namespace {

// Loops of a pass follow each other within microseconds: a worker looks for
// the next one for about this many pauses before it sleeps.
constexpr int kSpins = 4000;

inline void Pause() { __builtin_ia32_pause(); }

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this, i] { Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::For(int64_t n,
                     const std::function<void(int64_t, int)>& task) {
  if (n <= 0) return;
  std::lock_guard<std::mutex> caller(caller_mutex_);
  if (n == 1 || workers_.empty()) {
    for (int64_t i = 0; i < n; ++i) task(i, 0);
    return;
  }
  count_ = n;
  task_ = &task;
  next_.store(0);
  running_.store(static_cast<int>(workers_.size()));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  RunTasks(0);
  for (int spins = 0; running_.load() != 0; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::RunTasks(int thread) {
  for (int64_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) {
    (*task_)(i, thread);
  }
}

void ThreadPool::Work(int thread) {
  uint64_t seen = 0;
  while (true) {
    for (int spins = 0; spins < kSpins && generation_.load() == seen; ++spins) {
      Pause();
    }
    if (generation_.load() == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
    }
    seen = generation_.load();
    if (stop_) return;
    RunTasks(thread);
    running_.fetch_sub(1);
  }
}

}  // namespace qk
