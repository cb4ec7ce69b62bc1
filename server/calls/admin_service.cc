#include "server/calls/admin_service.h"

#include <memory>
#include <utility>

#include "engine/base/check.h"
#include "google/protobuf/descriptor.h"
#include "server/calls/call_record.h"
#include "server/calls/load_model_call.h"
#include "server/calls/unary_call.h"
#include "server/common/guarded.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"

namespace qk {

std::vector<std::string> AdminService::Methods() {
  std::vector<std::string> names;
  const auto* service = pb::LoadModelRequest::descriptor()->file()->service(0);
  names.reserve(service->method_count());
  for (int i = 0; i < service->method_count(); ++i) {
    names.push_back(service->method(i)->name());
  }
  return names;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::LoadModel(
    Context* context, const grpc::ByteBuffer* bytes) {
  return LoadModelCall::Start(parts_, server_, models_, context, *bytes);
}

grpc::ServerUnaryReactor* AdminService::UnloadModel(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  const auto call =
      std::make_shared<CallRecord>(parts_, context, "UnloadModel");
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Called exactly once: here if a check fails, else by the model manager.
  const auto finish = [call, reactor, response](const absl::Status& status) {
    *response = ToByteBuffer(pb::UnloadModelResponse());
    reactor->Finish(call->Finish(status));
  };
  absl::Status status = Guarded("UnloadModel", [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(call->Open(DeadlineRule::kClient));
    QK_RETURN_IF_ERROR(CheckAdminOn(*models_));
    pb::UnloadModelRequest request;
    QK_RETURN_IF_ERROR(ParseRaw(*bytes, &request));
    QK_RETURN_IF_ERROR(CheckModelName("name", request.name()));
    QK_RETURN_IF_ERROR(CheckMayManage(*call->user(), request.name()));
    call->model = request.name();
    return absl::OkStatus();
  });
  if (status.ok()) status = models_->StartUnload(call->model, finish);
  if (!status.ok()) finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ReloadConfig(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::ReloadConfigRequest, pb::ReloadConfigResponse>(
      *parts_, context, "ReloadConfig", Budget::kNotNeeded, bytes, response,
      [this](CallRecord*, const auto&,
             pb::ReloadConfigResponse* out) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckAdminOn(*models_));
        for (const Access::ReloadResult& part : access_->Reload()) {
          pb::ReloadConfigResponse::Part* added = out->add_parts();
          added->set_name(part.part);
          added->set_changed(part.changed);
          added->set_text(part.text);
          added->set_failure(StripPaths(part.failure.message()));
        }
        return absl::OkStatus();
      });
}

}  // namespace qk
