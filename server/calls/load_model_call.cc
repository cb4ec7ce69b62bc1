#include "server/calls/load_model_call.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/access/users.h"
#include "server/calls/model_info.h"
#include "server/common/guarded.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"
#include "server/events/raw_message.h"

namespace qk {
namespace {

absl::StatusOr<ModelToLoad> Convert(const pb::LoadModelRequest& request) {
  ModelToLoad out;
  QK_RETURN_IF_ERROR(CheckModelName("name", request.name()));
  out.name = request.name();
  out.path = request.path();
  if (request.compute() == "bf16") {
    out.compute = ComputeType::kBF16;
  } else if (request.has_compute() && request.compute() != "f32") {
    return absl::InvalidArgumentError(absl::StrCat(
        "compute: must be f32 or bf16, got '", Echo(request.compute()), "'"));
  }
  if (request.has_sha256() && !IsSha256(request.sha256())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sha256: must be 64 hex digits, got '", Echo(request.sha256()), "'"));
  }
  out.sha256 = absl::AsciiStrToLower(request.sha256());
  constexpr int kMaxIgnored = 256;
  QK_RETURN_IF_ERROR(CheckCount("ignore", request.ignore_size(), kMaxIgnored));
  QK_RETURN_IF_ERROR(
      CheckCount("ignore_tensors", request.ignore_tensors_size(), kMaxIgnored));
  out.ignored = IgnoredPartsOf(request);
  return out;
}

pb::LoadProgress::Phase PhaseOf(ModelManager::Phase phase) {
  switch (phase) {
    case ModelManager::Phase::kWaiting:
      return pb::LoadProgress::WAITING;
    case ModelManager::Phase::kChecking:
      return pb::LoadProgress::CHECKING;
    case ModelManager::Phase::kReading:
      return pb::LoadProgress::READING;
    case ModelManager::Phase::kWarmingUp:
      return pb::LoadProgress::WARMING_UP;
  }
  return pb::LoadProgress::PHASE_UNSPECIFIED;
}

}  // namespace

absl::Status CheckAdminOn(const ModelManager& models) {
  if (models.admin_enabled()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "ModelAdmin is off (model_admin in the config)");
}

absl::Status CheckMayManage(const User& user, const std::string& model) {
  if (MayUseModel(user, model)) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "name: '", Echo(model), "' is not among the user's allowed_models"));
}

LoadModelCall* LoadModelCall::Start(const CallParts* parts,
                                    const ServerDescription* server,
                                    ModelManager* models,
                                    grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer& message) {
  auto call =
      std::shared_ptr<LoadModelCall>(new LoadModelCall(parts, server, context));
  call->self_ = call;
  const absl::Status status =
      Guarded("LoadModel", [&] { return call->Begin(models, message); });
  if (!status.ok()) call->End(status);
  call->Pump();
  return call.get();
}

LoadModelCall::LoadModelCall(const CallParts* parts,
                             const ServerDescription* server,
                             grpc::CallbackServerContext* context)
    : StreamCall(parts, context),
      server_(server),
      call_(parts, context, "LoadModel") {}

absl::Status LoadModelCall::Begin(ModelManager* models,
                                  const grpc::ByteBuffer& message) {
  QK_ASSIGN_OR_RETURN(ModelManager::LoadRequest load,
                      Prepare(*models, message));
  call_parts_->calls->Register(weak_from_this());
  // Without this, nobody would abort a call that registers after AbortAll.
  QK_RETURN_IF_ERROR(call_parts_->calls->CheckOpen());
  return models->StartLoad(std::move(load));
}

absl::StatusOr<ModelManager::LoadRequest> LoadModelCall::Prepare(
    const ModelManager& models, const grpc::ByteBuffer& message) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(call_.Open(DeadlineRule::kClient));
  deadline_ = call_.deadline();
  QK_RETURN_IF_ERROR(CheckAdminOn(models));
  pb::LoadModelRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(message, &request));
  ModelManager::LoadRequest load;
  QK_ASSIGN_OR_RETURN(load.model, Convert(request));
  QK_RETURN_IF_ERROR(CheckMayManage(*call_.user(), request.name()));
  call_.model = load.model.name;
  load.replace = request.replace();
  load.id = call_.id();
  load.user = call_.user();
  const std::weak_ptr<LoadModelCall> weak = weak_from_this();
  load.on_progress = [weak](const ModelManager::Progress& progress) {
    if (const auto call = weak.lock()) call->Push(progress);
  };
  load.on_done = [weak](const absl::StatusOr<ModelEntry>& entry) {
    if (const auto call = weak.lock()) call->Loaded(entry);
  };
  return load;
}

void LoadModelCall::Push(const ModelManager::Progress& progress) {
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return;
    const pb::LoadProgress::Phase phase = PhaseOf(progress.phase);
    // A slow reader receives only the newest state of each phase.
    const bool same =
        !waiting_.empty() && waiting_.back().progress().phase() == phase;
    if (!same) waiting_.emplace_back();
    pb::LoadProgress* out = waiting_.back().mutable_progress();
    out->Clear();
    out->set_phase(phase);
    out->set_bytes_read(progress.bytes_read);
    out->set_bytes_total(progress.bytes_total);
    for (const std::string& name : progress.evicted) out->add_evicted(name);
  }
  Pump();
}

void LoadModelCall::Loaded(const absl::StatusOr<ModelEntry>& entry) {
  const absl::Status status = Guarded("LoadModel", [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(entry.status());
    MutexLock lock(&mutex_);
    if (end_.has_value()) return absl::OkStatus();
    *waiting_.emplace_back().mutable_model() =
        ModelInfoOf(*entry, server_->backend);
    loaded_ = true;
    return absl::OkStatus();
  });
  if (!status.ok()) End(status);
  Pump();
}

bool LoadModelCall::End(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (end_.has_value()) return false;
  end_ = reason;
  return true;
}

void LoadModelCall::Pump() {
  std::optional<grpc::Status> finish;
  {
    MutexLock lock(&mutex_);
    if (watch_.writing() || finished_) return;
    if (!end_.has_value() && !waiting_.empty()) {
      message_ = ToByteBuffer(waiting_.front());
      waiting_.pop_front();
      watch_.Begin();
    } else {
      if (!end_.has_value() && loaded_) end_ = absl::OkStatus();
      if (!end_.has_value()) return;
      finished_ = true;
      finish = call_.Finish(*end_);
    }
  }
  if (finish.has_value()) {
    Finish(*finish);
  } else {
    StartWrite(&message_);
  }
}

void LoadModelCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    watch_.End();
    if (!ok && !end_.has_value()) end_ = CancelledReason(*context_);
  }
  Pump();
}

void LoadModelCall::OnDone() {
  const std::shared_ptr<LoadModelCall> last = std::move(self_);
}

}  // namespace qk
