// Cancels calls from another thread, for example on Ctrl-C. Nothing here fails.
// Thread-safe.
#ifndef QKSCOPE_CLIENT_CPP_CANCELLATION_H_
#define QKSCOPE_CLIENT_CPP_CANCELLATION_H_

#include <functional>
#include <memory>

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

  Cancellation();
  ~Cancellation();
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel();
  bool cancelled() const;

 private:
  // Keeps the mutex out of a header that others install.
  struct State;

  const std::unique_ptr<State> state_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CANCELLATION_H_
