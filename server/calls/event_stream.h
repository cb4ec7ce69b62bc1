// The base of streams whose events are served raw: keeps one write in flight,
// and sends the status after the last one.
#ifndef QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_
#define QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/call_record.h"
#include "server/calls/post_work.h"
#include "server/calls/stream_call.h"

namespace qk {

class EventStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public StreamCall,
                    public std::enable_shared_from_this<EventStream> {
 public:
  void OnCancel() override { EndCancelled(); }
  void Pump() final;

 protected:
  EventStream(const CallParts* parts, grpc::CallbackServerContext* context,
              const char* method)
      : StreamCall(parts, context), call_(parts, context, method) {}

  // Reads a message. Runs when it is the user's turn on the host.
  using Begin = std::function<absl::Status(const grpc::ByteBuffer& message)>;
  // Opens the call and posts `begin`. Whatever fails ends the call.
  void Accept(const grpc::ByteBuffer& message, Budget budget, Begin begin)
      ABSL_LOCKS_EXCLUDED(mutex_);

  bool End(const absl::Status& reason) override;
  // Sets message_ to the next message. Returns false if there is none yet, or
  // if the stream is over; then it has set end_.
  virtual bool NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // Finishes call_. Called when end_ is set.
  virtual grpc::Status FinishRecord() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return call_.Finish(*end_);
  }
  // Called before each write. Starts work that can run during the write.
  virtual void PrepareNext() {}

  std::shared_ptr<EventStream> self_;  // set by Accept, reset by OnDone
  CallRecord call_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer message_ ABSL_GUARDED_BY(mutex_);  // in flight
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);

 private:
  absl::Status Open(const grpc::ByteBuffer& message, Budget budget, Begin begin)
      ABSL_LOCKS_EXCLUDED(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_
