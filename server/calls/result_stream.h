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
  absl::Status BeginResult(const grpc::ByteBuffer& bytes);
  absl::Status BeginAnalyze(const pb::AnalyzeRequest& request);
  bool NextMessage() override;
  // The next event, the one that was read ahead if there is one; or that there
  // is none yet: then Pump will be called.
  absl::StatusOr<KeptResult::Next> Get();
  void PrepareNext() override;
  // Reads the next event while one is being written.
  void ReadAhead();

  std::shared_ptr<KeptResult> result_;
  bool accepted_ = true;  // has been told, or need not be
  bool detached_ = false;
  int64_t seq_ = 0;  // of the event that is read next
  std::optional<KeptResult::Next> ahead_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_RESULT_STREAM_H_
