#include "server/calls/admin_service.h"

#include <memory>
#include <utility>

#include "engine/base/check.h"
#include "google/protobuf/descriptor.h"
#include "server/calls/answer.h"
#include "server/calls/call_record.h"
#include "server/calls/load_model_call.h"
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

grpc::ServerWriteReactor<pb::LoadModelEvent>* AdminService::LoadModel(
    Context* context, const pb::LoadModelRequest* request) {
  return LoadModelCall::Start(parts_, server_, models_, context, *request);
}

grpc::ServerUnaryReactor* AdminService::UnloadModel(
    Context* context, const pb::UnloadModelRequest* request,
    pb::UnloadModelResponse*) {
  const auto call =
      std::make_shared<CallRecord>(parts_, context, "UnloadModel");
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Called exactly once: here if a check fails, else by the model manager.
  const auto finish = [call, reactor](const absl::Status& status) {
    reactor->Finish(call->Finish(status));
  };
  absl::Status status = Guarded("UnloadModel", [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(call->Open(DeadlineRule::kClient));
    QK_RETURN_IF_ERROR(CheckAdminOn(*models_));
    QK_RETURN_IF_ERROR(CheckModelName("name", request->name()));
    QK_RETURN_IF_ERROR(CheckMayManage(*call->user(), request->name()));
    call->model = request->name();
    return absl::OkStatus();
  });
  if (status.ok()) status = models_->StartUnload(request->name(), finish);
  if (!status.ok()) finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::ReloadConfig(
    Context* context, const pb::ReloadConfigRequest*,
    pb::ReloadConfigResponse* response) {
  return Answer(*parts_, context, "ReloadConfig",
                [&](CallRecord*) -> absl::Status {
                  QK_RETURN_IF_ERROR(CheckAdminOn(*models_));
                  for (const Access::ReloadResult& part : access_->Reload()) {
                    pb::ReloadConfigResponse::Part* out = response->add_parts();
                    out->set_name(part.part);
                    out->set_changed(part.changed);
                    out->set_text(part.text);
                    out->set_failure(StripPaths(part.failure.message()));
                  }
                  return absl::OkStatus();
                });
}

}  // namespace qk
