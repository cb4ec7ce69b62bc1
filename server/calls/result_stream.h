// A stream of a kept result's events, from one number on: the answer to
// GetResult, and to an Analyze that may be resumed or is detached. The bytes
// are sent as they were kept.
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
                               const pb::AnalyzeRequest& request);

  void OnWriteDone(bool ok) override;
  void OnDone() override { self_.reset(); }

 private:
  ResultStream(const ServerCore* core, grpc::CallbackServerContext* context,
               const char* method);
  static ResultStream* Start(const std::shared_ptr<ResultStream>& stream,
                             const absl::Status& begun);
  absl::Status BeginResult(const grpc::ByteBuffer& bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status BeginAnalyze(const pb::AnalyzeRequest& request)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override;
  // The next event, the one that was read ahead if there is one; or that there
  // is none yet: then Pump will be called.
  absl::StatusOr<KeptResult::Next> Get() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PrepareNext() override;
  // Reads the next event while one is being written.
  void ReadAhead() ABSL_LOCKS_EXCLUDED(mutex_);

  const ServerCore* const core_;
  std::shared_ptr<KeptResult> result_ ABSL_GUARDED_BY(mutex_);
  // The client has been told the id, or need not be.
  bool accepted_ ABSL_GUARDED_BY(mutex_) = true;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t seq_ ABSL_GUARDED_BY(mutex_) = 0;  // of the event that is read next
  std::optional<KeptResult::Next> ahead_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RESULT_STREAM_H_
