// Places where a test may hold a thread, or end the process, to force what
// otherwise happens once in a million calls. A process without a hook, as
// qkscoped always is, loads one pointer at each and goes on: no flag, variable
// or file installs one, only code that is linked in.
#ifndef QKSCOPE_SERVER_COMMON_DELAY_POINT_H_
#define QKSCOPE_SERVER_COMMON_DELAY_POINT_H_

#include <atomic>

namespace qk {

// Called with the point's name, on the thread that came to it. Calls' points
// are under no lock of the server's but where a comment says so.
using DelayHook = void (*)(const char* point);

inline std::atomic<DelayHook> delay_hook{nullptr};

inline void DelayPoint(const char* point) {
  const DelayHook hook = delay_hook.load(std::memory_order_relaxed);
  if (hook != nullptr) [[unlikely]]
    hook(point);
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_DELAY_POINT_H_
