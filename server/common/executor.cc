#include "server/common/executor.h"

#include <utility>

#include "server/common/guarded.h"

namespace qk {

Executor::Executor(int threads, OnException on_exception)
    : on_exception_(std::move(on_exception)) {
  try {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Loop(); });
    }
  } catch (...) {
    Stop();
    throw;
  }
}

Executor::~Executor() { Stop(); }

void Executor::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void Executor::Post(std::function<void()> task) {
  {
    MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.NotifyOne();
}

void Executor::Loop() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(&mutex_);
      changed_.Wait(&mutex_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !tasks_.empty();
      });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    const absl::Status status = Guarded("executor", task);
    if (!status.ok() && on_exception_ != nullptr) on_exception_(status);
  }
}

}  // namespace qk
