// Writes to stderr without waiting for long for somebody to read it: a process
// that fails must end, whatever became of its pipe.
#ifndef QKSCOPE_ENGINE_BASE_BOUNDED_STDERR_H_
#define QKSCOPE_ENGINE_BASE_BOUNDED_STDERR_H_

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace qk {

// Gives up when stderr has taken nothing for a second. May be called on any
// thread.
inline void WriteStderr(const char* text, size_t bytes) {
  constexpr int kPatienceMs = 1000;
  while (bytes > 0) {
    pollfd out = {STDERR_FILENO, POLLOUT, 0};
    if (poll(&out, 1, kPatienceMs) != 1) return;
    // A pipe that is ready takes this much at once.
    const ssize_t count =
        write(STDERR_FILENO, text, bytes < PIPE_BUF ? bytes : PIPE_BUF);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text += count;
    bytes -= static_cast<size_t>(count);
  }
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_BOUNDED_STDERR_H_
