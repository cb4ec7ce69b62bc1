// Cancels calls from another thread, for example on Ctrl-C.
#ifndef QKSCOPE_CLIENT_CPP_CANCELLATION_H_
#define QKSCOPE_CLIENT_CPP_CANCELLATION_H_

#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk::client {

class Cancellation {
 public:
  // Runs `callback` on Cancel(), or at once if Cancel() was called before.
  // Never runs it after the destructor.
  class Registration {
   public:
    Registration(Cancellation* cancellation, std::function<void()> callback);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    Cancellation* cancellation_;  // may be null: never cancelled
    int id_ = 0;
  };

  void Cancel();
  bool cancelled() const;

 private:
  mutable Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  int next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int, std::function<void()>> callbacks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CANCELLATION_H_
