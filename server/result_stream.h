// A stream of a kept result's events, from one number on: the answer to
// GetResult, and to an Analyze that may be resumed or is detached. The bytes
// are sent as they were kept.
#ifndef QKSCOPE_SERVER_RESULT_STREAM_H_
#define QKSCOPE_SERVER_RESULT_STREAM_H_

#include <memory>
#include <optional>
#include <string>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_record.h"
#include "server/result_store.h"
#include "server/stream_call.h"

namespace qk {

class ResultStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                     public StreamCall,
                     public std::enable_shared_from_this<ResultStream> {
 public:
  static ResultStream* GetResult(const ServerCore* core,
                                 grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer& request);
  // `request` has detach or resumable set.
  static ResultStream* Analyze(const ServerCore* core,
                               grpc::CallbackServerContext* context,
                               const pb::AnalyzeRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { EndCancelled(); }
  void OnDone() override { self_.reset(); }

 private:
  ResultStream(const ServerCore* core, grpc::CallbackServerContext* context,
               const char* method);
  static ResultStream* Start(std::shared_ptr<ResultStream> stream,
                             const absl::Status& begun);
  absl::Status BeginResult(const grpc::ByteBuffer& bytes);
  absl::Status BeginAnalyze(const pb::AnalyzeRequest& request);
  bool End(const absl::Status& reason) override;
  void Pump() override;
  // Makes message_; false: nothing now. Sets end_ at the end. With mutex_ held.
  bool NextMessage();
  // The next event, or that there is none yet: then Pump will be called.
  absl::StatusOr<KeptResult::Next> Get();
  // Reads the next event while one is being written.
  void ReadAhead();

  std::shared_ptr<ResultStream> self_;
  CallRecord call_;
  std::shared_ptr<KeptResult> result_;
  bool accepted_ = true;  // has been told, or need not be
  bool detached_ = false;
  int64_t seq_ = 0;  // of the event that is read next
  std::optional<std::string> ahead_;
  grpc::ByteBuffer message_;  // in flight
  bool finished_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULT_STREAM_H_
