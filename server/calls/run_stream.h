// Handles a call that consists of one run: takes items from the run's queue,
// encodes them as events, and streams these.
#ifndef QKSCOPE_SERVER_CALLS_RUN_STREAM_H_
#define QKSCOPE_SERVER_CALLS_RUN_STREAM_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/event_stream.h"
#include "server/calls/server_core.h"
#include "server/convert/convert.h"
#include "server/events/event_encoder.h"
#include "server/observe/activation_run.h"

namespace qk {

// Adds a prompt to the call's log line if the server logs prompts.
using KeepPrompt = absl::FunctionRef<void(const pb::Input&)>;

class RunStream : public EventStream {
 public:
  // Parses and converts a message.
  using Convert = absl::StatusOr<ConvertedRequest> (*)(
      const grpc::ByteBuffer& message, const ConvertContext& context,
      const KeepPrompt& keep_prompt);
  // Converts an event of the encoder to the message to send. nullopt: the event
  // is skipped.
  using Translate =
      std::optional<grpc::ByteBuffer> (*)(pb::AnalyzeEvent* event);

  // The reactor lives until OnDone.
  static RunStream* Start(const CallParts* call_parts,
                          const RunParts* run_parts,
                          grpc::CallbackServerContext* context,
                          const char* method, ActivationSource source,
                          const grpc::ByteBuffer& message, Translate translate,
                          Convert convert);

  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  RunStream(const CallParts* call_parts, const RunParts* run_parts,
            grpc::CallbackServerContext* context, const char* method,
            ActivationSource source, Translate translate, Convert convert);

  // Runs when it is the user's turn on the host.
  absl::Status Begin(const grpc::ByteBuffer& message)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Does everything but submit `runs`.
  absl::Status Prepare(const grpc::ByteBuffer& message,
                       std::vector<ScheduledRun>* runs)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool End(const absl::Status& reason) override;
  bool NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  grpc::Status FinishRecord() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;

  const RunParts* const run_parts_;
  const ActivationSource source_;
  const Translate translate_;
  const Convert convert_;

  // Prepare sets these.
  ActivationRun activations_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<FrameQueue> queue_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<ScheduledRequest> request_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<UsageHold> answer_ ABSL_GUARDED_BY(mutex_);
  ByteLease memory_ ABSL_GUARDED_BY(mutex_);  // of the request
  std::optional<EventEncoder> encoder_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RUN_STREAM_H_
