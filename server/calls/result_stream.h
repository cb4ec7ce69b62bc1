// Streams the events of a kept result from a sequence number on. Handles
// GetResult, and Analyze if it is detached or resumable. The stored bytes are
// sent unchanged.
#ifndef QKSCOPE_SERVER_CALLS_RESULT_STREAM_H_
#define QKSCOPE_SERVER_CALLS_RESULT_STREAM_H_

#include <memory>
#include <optional>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/event_stream.h"
#include "server/results/result_store.h"

namespace qk {

class ResultStream : public EventStream {
 public:
  static ResultStream* GetResult(const ServerCore* core,
                                 grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer& request);
  // `request` has detach or resumable set.
  static ResultStream* Analyze(const ServerCore* core,
                               grpc::CallbackServerContext* context,
                               const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  ResultStream(const ServerCore* core, grpc::CallbackServerContext* context,
               const char* method);
  absl::Status BeginResult(const grpc::ByteBuffer& bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status BeginAnalyze(const grpc::ByteBuffer& bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  // Pump will be called when there is more.
  void ReadFrom(std::shared_ptr<KeptResult> result, int64_t from_seq)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns the next event, from ahead_ if that is set.
  absl::StatusOr<ResultReader::Event> Get()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PrepareNext() override;
  // Reads the next event into ahead_ while a write is in flight.
  void ReadAhead() ABSL_LOCKS_EXCLUDED(mutex_);

  const ServerCore* const core_;
  // What the answer may still use of the user's budget; nullptr: not known.
  std::shared_ptr<UsageHold> answer_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<ResultReader> reader_ ABSL_GUARDED_BY(mutex_);
  // Whether Accepted, which has the request's id, was sent or is not needed.
  bool accepted_ ABSL_GUARDED_BY(mutex_) = true;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<ResultReader::Event> ahead_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RESULT_STREAM_H_
