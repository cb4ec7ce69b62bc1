// If a mapped file shrinks, reading its lost pages raises SIGBUS, which would
// end the server. Reads of a guarded range return zeros instead, and the guard
// remembers that it happened.
#ifndef QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_
#define QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_

#include <cstddef>

namespace qk {

// Guards a mapping for as long as it lives; destroy it before munmap. The first
// guard installs the process's SIGBUS handler; faults elsewhere go on to the
// handler that was installed before.
class SigbusGuard {
 public:
  SigbusGuard(const void* begin, size_t bytes);
  SigbusGuard(const SigbusGuard&) = delete;
  SigbusGuard& operator=(const SigbusGuard&) = delete;
  ~SigbusGuard();

  // Returns whether a read has failed since construction, in any thread.
  bool faulted() const;

  struct Range;  // for the handler

 private:
  Range* range_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_SIGBUS_GUARD_H_
