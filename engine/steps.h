// A coroutine: a computation that pauses at points of its own choice and
// resumes there. A step runs from one pause to the next.
//
//   Steps Layer(...) {
//     ...
//     co_yield kPause;
//     for (Steps part = Part(...); part.Next();) co_yield kPause;
//   }
#ifndef QKSCOPE_ENGINE_STEPS_H_
#define QKSCOPE_ENGINE_STEPS_H_

#include <coroutine>
#include <exception>
#include <utility>

namespace qk {

struct Pause {};
inline constexpr Pause kPause;

class Steps {
 public:
  struct promise_type {
    Steps get_return_object() {
      return Steps(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(Pause) noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { error = std::current_exception(); }

    std::exception_ptr error;  // the exception that ended it
  };

  Steps() = default;
  Steps(Steps&& other) noexcept { *this = std::move(other); }
  Steps& operator=(Steps&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Steps() {
    if (handle_) handle_.destroy();
  }

  // Runs to the next pause. False: the computation has ended instead. An
  // exception ends it, and Next rethrows it.
  bool Next() {
    handle_.resume();
    if (handle_.promise().error != nullptr) {
      std::rethrow_exception(std::exchange(handle_.promise().error, nullptr));
    }
    return !handle_.done();
  }
  // Whether the computation has begun and not ended.
  bool paused() const { return handle_ && !handle_.done(); }

 private:
  explicit Steps(std::coroutine_handle<promise_type> handle)
      : handle_(handle) {}

  std::coroutine_handle<promise_type> handle_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_STEPS_H_
