// Handles LoadModel: streams the load's progress, and then the loaded model.
#ifndef QKSCOPE_SERVER_CALLS_LOAD_MODEL_CALL_H_
#define QKSCOPE_SERVER_CALLS_LOAD_MODEL_CALL_H_

#include <deque>
#include <memory>
#include <optional>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "qkscope/v1/admin.pb.h"
#include "server/calls/call_record.h"
#include "server/calls/stream_call.h"
#include "server/models/model_manager.h"

namespace qk {

// Fails with FAILED_PRECONDITION if ModelAdmin is off.
absl::Status CheckAdminOn(const ModelManager& models);
// Fails with PERMISSION_DENIED if the user may not use the model.
absl::Status CheckMayManage(const User& user, const std::string& model);

class LoadModelCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                      public StreamCall,
                      public std::enable_shared_from_this<LoadModelCall> {
 public:
  // The reactor lives until OnDone. The load may outlive it.
  static LoadModelCall* Start(const CallParts* parts,
                              const ServerDescription* server,
                              ModelManager* models,
                              grpc::CallbackServerContext* context,
                              const grpc::ByteBuffer& message);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { EndCancelled(); }
  void OnDone() override;

 private:
  LoadModelCall(const CallParts* parts, const ServerDescription* server,
                grpc::CallbackServerContext* context);

  absl::Status Begin(ModelManager* models, const grpc::ByteBuffer& message)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Opens the call, and parses and converts its message.
  absl::StatusOr<ModelManager::LoadRequest> Prepare(
      const ModelManager& models, const grpc::ByteBuffer& message)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Push(const ModelManager::Progress& progress);
  void Loaded(const absl::StatusOr<ModelEntry>& entry);

  bool End(const absl::Status& reason) override;
  void Pump() override;

  const ServerDescription* const server_;
  std::shared_ptr<LoadModelCall> self_;
  CallRecord call_ ABSL_GUARDED_BY(mutex_);
  std::deque<pb::LoadModelEvent> waiting_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer message_ ABSL_GUARDED_BY(mutex_);  // in flight
  // The last event is in waiting_ or already written.
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_LOAD_MODEL_CALL_H_
