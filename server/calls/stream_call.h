// The base of streaming calls: limits how long a write may take, and ends the
// call when its client is gone.
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
  // Ends the call with an error, after the write in flight.
  void Refuse(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the call because its request was cancelled. `why`: as the scheduler
  // has it.
  void EndCancelledBy(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

 protected:
  StreamCall(const CallParts* parts, grpc::CallbackServerContext* context)
      : call_parts_(parts), context_(context), stuck_(context->peer()) {}

  // The reactor's OnCancel calls this.
  void EndCancelled() ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the call with an error. Returns false if it had ended before.
  virtual bool End(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_) = 0;
  // Ends the call with what a part of it has thrown, instead of a write that
  // was in flight if `write`.
  void EndThrown(const absl::Status& thrown, bool write)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // If no write is in flight, starts the next one or finishes the call,
  // whichever is due. May be called on any thread.
  virtual void Pump() ABSL_LOCKS_EXCLUDED(mutex_) = 0;

  const CallParts* const call_parts_;
  grpc::CallbackServerContext* const context_;
  absl::Time deadline_ = absl::InfiniteFuture();  // constant once registered

  Mutex mutex_;
  WriteWatch watch_ ABSL_GUARDED_BY(mutex_);

 private:
  void CutIfStuck(absl::Time now, absl::Duration patience)
      ABSL_LOCKS_EXCLUDED(mutex_);

  StuckConnection stuck_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_STREAM_CALL_H_
