#include "server/observe/activation_run.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace qk {

ActivationRun::ActivationRun(ActivationMetrics* metrics, const RunSpec& spec,
                             ActivationSource source)
    : metrics_(metrics),
      source_(source),
      number_(metrics->recent()->NewRun()),
      whole_prompt_(spec.capture.positions.empty() ||
                    spec.capture.positions.size() == spec.tokens.size()) {
  for (const ArmSpec& arm : spec.arms) {
    Arm out;
    out.model = metrics->Find(arm.model.get());
    out.kind = ArmKindOf(arm);
    out.shown =
        std::none_of(arms_.begin(), arms_.end(), [&out](const Arm& other) {
          return other.model == out.model && other.kind == out.kind;
        });
    arms_.push_back(std::move(out));
  }
}

bool ActivationRun::Measures(const LayerFrame& frame) const {
  return whole_prompt_ && frame.phase == Phase::kPrefill &&
         frame.stage == Stage::kBefore && frame.image < 0 &&
         arms_[static_cast<size_t>(frame.arm)].model->HasAllHeads(frame);
}

void ActivationRun::Add(const LayerFrame& frame) {
  if (metrics_ == nullptr || !frame.statistics.has_value()) return;
  const Arm& arm = arms_[static_cast<size_t>(frame.arm)];
  if (arm.model == nullptr) return;
  metrics_->CountNonFinite(*arm.model, frame.statistics->non_finite_count);
  const auto matrix = ActivationMatrixOf(frame.point);
  if (!matrix.has_value() || !Measures(frame)) return;
  if (std::find(measured_.begin(), measured_.end(), arm.model) ==
      measured_.end()) {
    measured_.push_back(arm.model);
    metrics_->MarkUsed(arm.model.get());
  }
  const ActivationGauges gauges =
      arm.model->Add(frame, *matrix, arm.kind, arm.shown);
  metrics_->recent()->Add({number_, frame.arm, arm.kind}, arm.model->name(),
                          *matrix, frame.layer, gauges);
}

void ActivationRun::Finish() {
  for (const auto& model : std::exchange(measured_, {})) {
    model->totals().CountSample(source_);
  }
}

}  // namespace qk
