// Handles a call that consists of one run: takes items from the run's queue,
// encodes them as events, and streams these.
#ifndef QKSCOPE_SERVER_CALLS_RUN_STREAM_H_
#define QKSCOPE_SERVER_CALLS_RUN_STREAM_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/event_stream.h"
#include "server/calls/server_core.h"
#include "server/convert/convert.h"
#include "server/events/event_encoder.h"

namespace qk {

class RunStream : public EventStream {
 public:
  using Convert = std::function<absl::StatusOr<ConvertedRequest>(
      const ConvertContext& context)>;
  // Converts an event of the encoder to the message to send. nullopt: the event
  // is skipped.
  using Translate =
      std::optional<grpc::ByteBuffer> (*)(pb::AnalyzeEvent* event);

  // The reactor lives until OnDone.
  static RunStream* Start(const CallParts* call_parts,
                          const RunParts* run_parts,
                          grpc::CallbackServerContext* context,
                          const char* method, Translate translate,
                          const pb::Input& input, const Convert& convert);

  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  RunStream(const CallParts* call_parts, const RunParts* run_parts,
            grpc::CallbackServerContext* context, const char* method,
            Translate translate);

  absl::Status Begin(const pb::Input& input, const Convert& convert)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Does everything but submit `runs`.
  absl::Status Prepare(const pb::Input& input, const Convert& convert,
                       std::vector<ScheduledRun>* runs)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool End(const absl::Status& reason) override;
  bool NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  grpc::Status FinishRecord() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;

  const RunParts* const run_parts_;
  const Translate translate_;

  // Prepare sets these before other threads can see the call.
  pb::AnalyzeRequest expanded_;
  std::shared_ptr<FrameQueue> queue_;
  std::shared_ptr<ScheduledRequest> request_;

  std::optional<EventEncoder> encoder_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RUN_STREAM_H_
