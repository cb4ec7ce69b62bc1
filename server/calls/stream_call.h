// What the streaming calls share: time limits of a write that does not end, and
// what happens when the client is gone.
#ifndef QKSCOPE_SERVER_CALLS_STREAM_CALL_H_
#define QKSCOPE_SERVER_CALLS_STREAM_CALL_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
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
  StreamCall(const CallParts* parts, grpc::CallbackServerContext* context)
      : call_parts_(parts), context_(context), stuck_(context->peer()) {}

  // For the reactor's OnCancel.
  void EndCancelled() ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the call with an error, unless it has ended. True: it did.
  virtual bool End(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_) = 0;
  // Starts the next write, or finishes, if there is something to do and no
  // write is in flight. Any thread.
  virtual void Pump() ABSL_LOCKS_EXCLUDED(mutex_) = 0;

  const CallParts* const call_parts_;
  grpc::CallbackServerContext* const context_;
  absl::Time deadline_ = absl::InfiniteFuture();  // set before the call runs

  Mutex mutex_;
  WriteWatch watch_ ABSL_GUARDED_BY(mutex_);

 private:
  void CutIfStuck(absl::Time now, absl::Duration patience)
      ABSL_LOCKS_EXCLUDED(mutex_);

  StuckConnection stuck_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_STREAM_CALL_H_
