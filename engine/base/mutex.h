// A mutex that clang checks at compile time: every guarded member says which
// mutex guards it, every function that needs a lock says which one, and the
// preset `thread-safety` turns a missing lock into an error. The annotations
// are absl's (ABSL_GUARDED_BY and so on); for GCC they are empty.
//
// The mutex is std::mutex, not absl::Mutex, because ThreadSanitizer cannot see
// the locks of a library that was built without it, as Debian's absl is: every
// access under an absl::Mutex would be reported as a race.
#ifndef QKSCOPE_ENGINE_BASE_MUTEX_H_
#define QKSCOPE_ENGINE_BASE_MUTEX_H_

#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "engine/base/monotonic.h"

namespace qk {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class CondVar;

  std::mutex mutex_;
};

// Holds the mutex from its construction to the end of its scope.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

// Waits always take a predicate, so that a spurious wake-up cannot be missed.
// It is called with the mutex held; one that reads guarded members is
// annotated: `[this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { ... }`. clang
// checks its body, but cannot match its mutex with the parameter here, hence
// ABSL_NO_THREAD_SAFETY_ANALYSIS.
class CondVar {
 public:
  void NotifyOne() { changed_.notify_one(); }
  void NotifyAll() { changed_.notify_all(); }

  template <typename Predicate>
  void Wait(Mutex* mutex, Predicate done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Adopted held(mutex);
    changed_.wait(held.lock, done);
  }

  // False: the time is up, and `done` still false.
  template <typename Predicate>
  bool WaitFor(Mutex* mutex, absl::Duration timeout, Predicate done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Adopted held(mutex);
    return changed_.wait_for(held.lock, absl::ToChronoNanoseconds(timeout),
                             done);
  }
  // `deadline` is a time of MonotonicNow.
  template <typename Predicate>
  bool WaitUntil(Mutex* mutex, absl::Time deadline, Predicate done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Adopted held(mutex);
    return changed_.wait_until(held.lock, ToSteadyTime(deadline), done);
  }

 private:
  // Lends a mutex that is held to std::condition_variable.
  struct Adopted {
    explicit Adopted(Mutex* mutex) : lock(mutex->mutex_, std::adopt_lock) {}
    ~Adopted() { lock.release(); }
    std::unique_lock<std::mutex> lock;
  };

  std::condition_variable changed_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_MUTEX_H_
