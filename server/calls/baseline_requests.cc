// The ModelAdmin service's RPCs about baselines.
#include <memory>
#include <vector>

#include "engine/base/check.h"
#include "server/access/users.h"
#include "server/calls/admin_service.h"
#include "server/calls/load_model_call.h"
#include "server/calls/pages.h"
#include "server/calls/unary_call.h"
#include "server/common/model_name.h"

namespace qk {
namespace {

using Loaded = std::shared_ptr<ActivationModel>;

absl::Status CheckModel(const std::string& name, CallRecord* call) {
  QK_RETURN_IF_ERROR(CheckModelName("model", name));
  QK_RETURN_IF_ERROR(CheckMayManage(*call->user(), name));
  call->model = name;
  return absl::OkStatus();
}

void AddDrifts(const ActivationModel& model, pb::Baseline* out) {
  for (int i = 0; i < kActivationMatrices; ++i) {
    const auto matrix = static_cast<ActivationMatrix>(i);
    const auto gauges = model.Gauges(matrix, ArmKind::kClean);
    for (size_t layer = 0; layer < gauges.size(); ++layer) {
      if (!gauges[layer].has_value() || !gauges[layer]->drift.has_value()) {
        continue;
      }
      pb::BaselineDrift* drift = out->add_drifts();
      drift->set_point(PointOf(matrix));
      drift->set_layer(static_cast<int>(layer));
      drift->set_drift(*gauges[layer]->drift);
    }
  }
}

// The baseline of a model that has one.
pb::Baseline BaselineToProto(const ActivationModel& model,
                             const ActivationBaseline& baseline, bool kept) {
  pb::Baseline out;
  out.set_model(model.name());
  out.set_weights_sha256(baseline.weights_sha256);
  out.set_created_unix_ms(absl::ToUnixMillis(baseline.created));
  out.set_prompts(baseline.patterns.prompts());
  out.set_matrices(static_cast<int>(baseline.patterns.means().size()));
  out.set_kept(kept);
  AddDrifts(model, &out);
  return out;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::SaveBaseline(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::SaveBaselineRequest, pb::Baseline>(
      *parts_, context, "SaveBaseline", Budget::kNotNeeded, bytes, response,
      [this](CallRecord* call, const pb::SaveBaselineRequest& request,
             pb::Baseline* out) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckModel(request.model(), call));
        QK_ASSIGN_OR_RETURN(const SavedBaseline saved,
                            activations_->SaveBaseline(request.model()));
        *out = BaselineToProto(*saved.model, *saved.baseline,
                               activations_->keeps_baselines());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AdminService::ListBaselines(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::ListBaselinesRequest, pb::ListBaselinesResponse>(
      *parts_, context, "ListBaselines", Budget::kNotNeeded, bytes, response,
      [this](CallRecord* call, const pb::ListBaselinesRequest& request,
             pb::ListBaselinesResponse* out) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckOffset(request.offset()));
        if (!request.model().empty()) {
          QK_RETURN_IF_ERROR(CheckModel(request.model(), call));
        }
        std::vector<pb::Baseline> found;
        for (const Loaded& model : activations_->Models()) {
          const auto baseline = model->baseline();
          if (baseline == nullptr ||
              !MayUseModel(*call->user(), model->name()) ||
              (!request.model().empty() && model->name() != request.model())) {
            continue;
          }
          found.push_back(BaselineToProto(*model, *baseline,
                                          activations_->keeps_baselines()));
        }
        const auto next = FillPage(
            static_cast<int>(found.size()), request.offset(),
            [&](int i) { return found[static_cast<size_t>(i)]; },
            out->mutable_baselines());
        if (next.has_value()) out->set_next_offset(*next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AdminService::RemoveBaseline(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::RemoveBaselineRequest, pb::RemoveBaselineResponse>(
      *parts_, context, "RemoveBaseline", Budget::kNotNeeded, bytes, response,
      [this](CallRecord* call, const pb::RemoveBaselineRequest& request,
             pb::RemoveBaselineResponse*) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckModel(request.model(), call));
        return activations_->RemoveBaseline(request.model());
      });
}

}  // namespace qk
