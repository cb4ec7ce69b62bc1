// The answer to a call that runs one run: a stream of events, one write in
// flight, from the run's queue through an encoder.
#ifndef QKSCOPE_SERVER_RUN_STREAM_H_
#define QKSCOPE_SERVER_RUN_STREAM_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_record.h"
#include "server/convert.h"
#include "server/event_encoder.h"
#include "server/server_core.h"
#include "server/stream_call.h"

namespace qk {

class RunStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                  public StreamCall,
                  public std::enable_shared_from_this<RunStream> {
 public:
  using Convert = std::function<absl::StatusOr<ConvertedRequest>(
      const ConvertContext& context)>;
  // The message that is sent for an event of the encoder's; nullopt: none is.
  using Translate =
      std::optional<grpc::ByteBuffer> (*)(pb::AnalyzeEvent* event);

  // The reactor lives until gRPC is done with it.
  static RunStream* Start(const ServerCore* core,
                          grpc::CallbackServerContext* context,
                          const char* method, Translate translate,
                          const pb::Input& input, const Convert& convert);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { EndCancelled(); }
  void OnDone() override;

 private:
  RunStream(const ServerCore* core, grpc::CallbackServerContext* context,
            const char* method, Translate translate);

  absl::Status Begin(const pb::Input& input, const Convert& convert);
  bool End(const absl::Status& reason) override;
  void Pump() override;
  // Makes message_; false: nothing to write now. Sets end_ at the end.
  bool NextMessage();
  grpc::Status FinishRecord();

  const Translate translate_;
  std::shared_ptr<RunStream> self_;

  // Set by Begin.
  pb::AnalyzeRequest expanded_;
  std::shared_ptr<FrameQueue> queue_;
  std::shared_ptr<ScheduledRequest> request_;

  CallRecord call_;
  std::optional<EventEncoder> encoder_;
  grpc::ByteBuffer message_;  // in flight
  bool finished_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RUN_STREAM_H_
