// What the streaming calls share: time limits of a write that does not end, and
// what happens when the client is gone.
#ifndef QKSCOPE_SERVER_CALLS_STREAM_CALL_H_
#define QKSCOPE_SERVER_CALLS_STREAM_CALL_H_

#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "server/calls/call_tracker.h"
#include "server/calls/server_core.h"
#include "server/calls/write_watch.h"

namespace qk {

class StreamCall : public LiveCall {
 public:
  void Tick(absl::Time now) final;
  void Abort(const absl::Status& reason) final;

 protected:
  StreamCall(const ServerCore* core, grpc::CallbackServerContext* context)
      : core_(core), context_(context), stuck_(context->peer()) {}

  // For the reactor's OnCancel.
  void EndCancelled();

  // Ends the call with an error, unless it has ended. True: it did.
  virtual bool End(const absl::Status& reason) = 0;
  // Starts the next write, or finishes, if there is something to do and no
  // write is in flight. Any thread.
  virtual void Pump() = 0;

  const ServerCore* const core_;
  grpc::CallbackServerContext* const context_;
  absl::Time deadline_ = absl::InfiniteFuture();  // set before the call runs

  std::mutex mutex_;
  WriteWatch watch_;

 private:
  void CutIfStuck(absl::Time now, absl::Duration patience);

  StuckConnection stuck_;  // under mutex_
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_STREAM_CALL_H_
