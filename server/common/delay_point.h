// Points where a test may hold a thread, throw, or end the process, to force
// what otherwise happens once in a million calls. A process without a hook,
// such as qkscoped, only loads one pointer at each point. Only code that is
// linked in can install a hook; no flag, environment variable or file can.
#ifndef QKSCOPE_SERVER_COMMON_DELAY_POINT_H_
#define QKSCOPE_SERVER_COMMON_DELAY_POINT_H_

#include <atomic>

namespace qk {

// Called with the point's name, on the thread that reached it. The points in
// calls are not under a lock of the server, except where a comment says so.
using DelayHook = void (*)(const char* point);

inline std::atomic<DelayHook> delay_hook{nullptr};

inline void DelayPoint(const char* point) {
  const DelayHook hook = delay_hook.load(std::memory_order_relaxed);
  if (hook != nullptr) [[unlikely]]
    hook(point);
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_DELAY_POINT_H_
