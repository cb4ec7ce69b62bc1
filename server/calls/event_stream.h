// What the streams of events that are served raw share: one write in flight,
// and the status when nothing is left to write.
#ifndef QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_
#define QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/call_record.h"
#include "server/calls/stream_call.h"

namespace qk {

class EventStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public StreamCall,
                    public std::enable_shared_from_this<EventStream> {
 public:
  void OnCancel() override { EndCancelled(); }
  void Pump() final;

 protected:
  EventStream(const ServerCore* core, grpc::CallbackServerContext* context,
              const char* method)
      : StreamCall(core, context), call_(core, context, method) {}

  bool End(const absl::Status& reason) override;
  // Makes message_; false: nothing to write now. Sets end_ at the end. With
  // mutex_ held.
  virtual bool NextMessage() = 0;
  // With end_ set and mutex_ held.
  virtual grpc::Status FinishRecord() { return call_.Finish(*end_); }
  // Before a write: what may go on beside it.
  virtual void PrepareNext() {}

  std::shared_ptr<EventStream> self_;  // until gRPC is done with it
  CallRecord call_;
  grpc::ByteBuffer message_;  // in flight
  bool finished_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_EVENT_STREAM_H_
