// What the calls of clients may cost gRPC before anybody looks at them.
//
// gRPC forgets a call that its client resets at once, but frees it much later
// than it can read the next one; it reads the headers of a call without end if
// they come in many frames; and it reads a message, up to its limit, before a
// handler can ask who is calling. So calls are counted from their first byte
// until they are freed, and a connection that goes too far is cut.
#ifndef QKSCOPE_SERVER_NET_OPEN_CALLS_H_
#define QKSCOPE_SERVER_NET_OPEN_CALLS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk {

// Bytes are estimates of what gRPC allocates; `kCallBytes` and `kHeaderBytes`
// (of one byte on the wire, which may stand for a whole header) are measured.
struct CallLimits {
  static constexpr int64_t kCallBytes = 20 * 1024;
  static constexpr int64_t kHeaderBytes = 160;

  int calls_per_connection = 1024;
  int64_t header_bytes_per_call = 16 * 1024;  // on the wire
  // A client may cancel all that it has open at once, and later this many calls
  // a second.
  int cancels = 1024;
  int cancels_per_second = 1000;
  // Of all connections together. Beyond one of these, every connection that has
  // more than the few bytes is cut at its next frame.
  int64_t call_bytes = int64_t{128} << 20;
  int64_t few_call_bytes = int64_t{1} << 20;
  int64_t message_bytes = int64_t{256} << 20;
  int64_t few_message_bytes = int64_t{5} << 20;
};

// Thread-safe. Calls and connections are any pointers that differ.
class OpenCalls {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit OpenCalls(const CallLimits& limits) : limits_(limits) {}

  void Add(const void* call, const void* connection)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The call's memory is free. Unknown calls are ignored, here and below.
  void Remove(const void* call) ABSL_LOCKS_EXCLUDED(mutex_);

  // `bytes` of the call's headers or of its message have come. Returns false if
  // its connection must be cut.
  bool AddHeaders(const void* call, int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  bool AddMessage(const void* call, int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  // The client cancels the call. Returns false as above.
  bool Cancel(const void* call, Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // The message's last bytes are coming: a handler decides what becomes of it.
  // It no longer counts.
  void EndMessage(const void* call) ABSL_LOCKS_EXCLUDED(mutex_);

  // The connections that are remembered.
  size_t connections() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  static constexpr size_t kDropAt = 1024;

  struct Cost {
    int calls = 0;
    int64_t call_bytes = 0;  // an estimate, as in CallLimits
    int64_t message_bytes = 0;
  };
  struct Connection {
    Cost cost;
    // Cancellations that count, as of a moment: they are forgotten with time.
    double cancels = 0;
    Time as_of;
  };
  struct Call {
    Connection* connection = nullptr;  // in connections_
    int64_t header_bytes = 0;          // on the wire
    int64_t message_bytes = 0;
    bool message_ended = false;
  };

  void ForgetCancels(Connection* connection, Time now) const;
  // Drops connections without calls whose cancellations are forgotten. (Nobody
  // says when a connection ends, and a new one may have its address.)
  void DropIdle(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Charge(Call* call, int64_t call_bytes, int64_t message_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Allowed(const Call& call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallLimits limits_;
  mutable Mutex mutex_;
  std::unordered_map<const void*, Call> calls_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<const void*, Connection> connections_
      ABSL_GUARDED_BY(mutex_);
  size_t drop_at_ ABSL_GUARDED_BY(mutex_) = kDropAt;  // connections
  Cost all_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_OPEN_CALLS_H_
