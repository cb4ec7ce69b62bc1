#include "server/observe/activation_metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/observe/activation_page.h"

namespace qk {
namespace {

// Number of models that get their own label.
constexpr size_t kMaxModels = 50;
constexpr char kOther[] = "other";

}  // namespace

std::shared_ptr<ActivationTotals> ActivationMetrics::TotalsOf(
    const std::string& name) {
  const auto known = totals_.find(name);
  if (known != totals_.end()) return known->second;
  const std::string label =
      totals_.size() - totals_.count(kOther) < kMaxModels ? name : kOther;
  std::shared_ptr<ActivationTotals>& totals = totals_[label];
  if (totals == nullptr) totals = std::make_shared<ActivationTotals>(label);
  return totals;
}

void ActivationMetrics::ModelLoaded(const std::string& name, const Model* model,
                                    const ModelConfig& config) {
  recent_.Forget(name);
  MutexLock lock(&mutex_);
  loaded_[name] = {
      model, std::make_shared<ActivationModel>(name, TotalsOf(name), config)};
}

void ActivationMetrics::ModelUnloaded(const std::string& name) {
  MutexLock lock(&mutex_);
  loaded_.erase(name);
}

std::shared_ptr<ActivationModel> ActivationMetrics::Find(
    const Model* model) const {
  MutexLock lock(&mutex_);
  for (const auto& [name, loaded] : loaded_) {
    if (loaded.model == model) return loaded.activations;
  }
  return nullptr;
}

void ActivationMetrics::CountNonFinite(const ActivationModel& model,
                                       int64_t values) const {
  if (values > 0 && options_.on_non_finite != nullptr) {
    options_.on_non_finite(model.totals().label(), values);
  }
}

bool ActivationMetrics::Choose() {
  const double share = options_.shown.sampling;
  if (share <= 0) return false;
  const double before = static_cast<double>(offered_++);
  return std::floor((before + 1) * share) > std::floor(before * share);
}

bool ActivationMetrics::TakeRoom(int64_t bytes) {
  if (waiting_bytes_.fetch_add(bytes) + bytes <= options_.max_waiting_bytes) {
    return true;
  }
  waiting_bytes_ -= bytes;
  return false;
}

std::vector<prometheus::MetricFamily> ActivationMetrics::Collect(
    const std::function<bool(const std::string& model)>& may_see) const {
  std::vector<std::shared_ptr<ActivationModel>> by_layer;
  std::vector<std::shared_ptr<ActivationTotals>> totals;
  {
    MutexLock lock(&mutex_);
    for (const auto& [label, known] : totals_) {
      if (may_see(label)) totals.push_back(known);
    }
    for (const auto& [name, loaded] : loaded_) {
      const ActivationModel& model = *loaded.activations;
      // Layers of several models would be confused.
      if (model.totals().label() != name) continue;
      if (model.used() > 0 && may_see(name)) {
        by_layer.push_back(loaded.activations);
      }
    }
  }
  std::sort(by_layer.begin(), by_layer.end(),
            [](const auto& a, const auto& b) { return a->used() > b->used(); });
  const size_t most = static_cast<size_t>(options_.shown.models);
  if (by_layer.size() > most) by_layer.resize(most);
  return ActivationPage(totals, by_layer, dropped_, options_.max_series);
}

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
