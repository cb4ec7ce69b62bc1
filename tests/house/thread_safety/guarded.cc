// The CMakeLists.txt beside it compiles this with and without each mistake.
#include "engine/base/mutex.h"

namespace qk {

class Counter {
 public:
  int Read() {
#ifndef QK_READ_WITHOUT_LOCK
    MutexLock lock(&mutex_);
#endif
    return count_;
  }

  void Add() ABSL_LOCKS_EXCLUDED(mutex_) {
#ifndef QK_CALL_WITHOUT_LOCK
    MutexLock lock(&mutex_);
#endif
    AddLocked();
  }

  void AddTwice() {
    MutexLock lock(&mutex_);
    AddLocked();
#ifdef QK_LOCK_TWICE
    Add();
#else
    AddLocked();
#endif
  }

  void WaitForOne() {
#ifndef QK_WAIT_WITHOUT_LOCK
    MutexLock lock(&mutex_);
#endif
    changed_.Wait(&mutex_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return count_ > 0;
    });
  }

  void WaitForTwo() {
    MutexLock lock(&mutex_);
#ifdef QK_UNMARKED_PREDICATE
    changed_.Wait(&mutex_, [this] { return count_ > 1; });
#else
    changed_.Wait(&mutex_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return count_ > 1;
    });
#endif
  }

 private:
  void AddLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { ++count_; }

  Mutex mutex_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

void UseAll() {
  Counter counter;
  counter.Add();
  counter.AddTwice();
  counter.WaitForOne();
  counter.WaitForTwo();
  counter.Read();
}

}  // namespace qk
