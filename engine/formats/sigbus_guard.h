// A file that shrinks while it is mapped turns reads of its lost pages into
// SIGBUS, which would end the server. Guarded ranges read as zeros instead and
// remember that it happened.
#ifndef QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_
#define QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_

#include <cstddef>

namespace qk {

// Guards a mapping while it lives; destroy it before munmap. The first one
// installs the process's SIGBUS handler; faults elsewhere go on to the handler
// that was there before.
class SigbusGuard {
 public:
  SigbusGuard(const void* begin, size_t bytes);
  SigbusGuard(const SigbusGuard&) = delete;
  SigbusGuard& operator=(const SigbusGuard&) = delete;
  ~SigbusGuard();

  // Whether a read failed since construction, in any thread.
  bool faulted() const;

  struct Range;  // for the handler

 private:
  Range* range_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_
