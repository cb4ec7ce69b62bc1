#include "server/observe/activation_metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "server/common/text.h"
#include "server/observe/activation_page.h"
#include "server/observe/families.h"

namespace qk {
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
                                    const ModelConfig& config,
                                    const std::string& weights_sha256) {
  MutexLock baseline_lock(&baseline_mutex_);
  std::shared_ptr<ActivationTotals> totals;
  {
    MutexLock lock(&mutex_);
    totals = TotalsOf(name);
  }
  auto activations = std::make_shared<ActivationModel>(name, std::move(totals),
                                                       config, weights_sha256);
  if (folder_.keeps()) {
    auto kept = folder_.Read(name, weights_sha256, config);
    if (kept.ok()) {
      activations->SetBaseline(
          std::make_shared<const ActivationBaseline>(*std::move(kept)));
    } else if (!absl::IsNotFound(kept.status()) &&
               options_.on_bad_baseline != nullptr) {
      options_.on_bad_baseline(name, kept.status());
    }
  }
  recent_.Forget(name);
  MutexLock lock(&mutex_);
  loaded_[name] = {model, std::move(activations)};
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

std::shared_ptr<ActivationModel> ActivationMetrics::FindByName(
    const std::string& name) const {
  MutexLock lock(&mutex_);
  const auto it = loaded_.find(name);
  return it == loaded_.end() ? nullptr : it->second.activations;
}

std::vector<std::shared_ptr<ActivationModel>> ActivationMetrics::Models()
    const {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<ActivationModel>> out;
  for (const auto& [name, loaded] : loaded_) out.push_back(loaded.activations);
  return out;
}

absl::StatusOr<SavedBaseline> ActivationMetrics::SaveBaseline(
    const std::string& name) {
  const std::shared_ptr<ActivationModel> model = FindByName(name);
  if (model == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("model '", Echo(name), "' is not loaded; see ListModels"));
  }
  return SaveBaseline(model, model->patterns());
}

absl::StatusOr<SavedBaseline> ActivationMetrics::SaveBaseline(
    const std::shared_ptr<ActivationModel>& model, MeanPatterns patterns) {
  if (patterns.means().empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "model '", model->name(),
        "' has shown no norms of an undisrupted prompt since it was loaded; "
        "run one (qkctl analyze), or give prompts (qkctl baseline save "
        "--file)"));
  }
  auto baseline = std::make_shared<ActivationBaseline>();
  baseline->model = model->name();
  baseline->weights_sha256 = model->weights_sha256();
  baseline->created = absl::Now();
  baseline->patterns = std::move(patterns);
  MutexLock lock(&baseline_mutex_);
  if (FindByName(model->name()) != model) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", model->name(),
                     "' was unloaded or replaced meanwhile; try again"));
  }
  if (folder_.keeps()) QK_RETURN_IF_ERROR(folder_.Write(*baseline));
  model->SetBaseline(baseline);
  return SavedBaseline{model, std::move(baseline)};
}

absl::Status ActivationMetrics::RemoveBaseline(const std::string& name) {
  MutexLock lock(&baseline_mutex_);
  bool had_one = false;
  if (folder_.keeps()) {
    const absl::Status status = folder_.Remove(name);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
    had_one = status.ok();
  }
  const std::shared_ptr<ActivationModel> model = FindByName(name);
  if (model != nullptr && model->baseline() != nullptr) {
    model->SetBaseline(nullptr);
    had_one = true;
  }
  if (had_one) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("model '", Echo(name), "' has no baseline"));
}

void ActivationMetrics::CountNonFinite(const ActivationModel& model,
                                       int64_t values) const {
  if (values > 0 && options_.on_non_finite != nullptr) {
    options_.on_non_finite(model.name(), values);
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
  ActivationPageContent page;
  page.dropped = dropped_;
  {
    MutexLock lock(&mutex_);
    for (const auto& [label, known] : totals_) {
      if (may_see(label)) page.totals.push_back(known);
    }
    for (const auto& [name, loaded] : loaded_) {
      const ActivationModel& model = *loaded.activations;
      // Layers of several models would be confused.
      if (model.totals().label() != name || !may_see(name)) continue;
      page.loaded.push_back(loaded.activations);
      if (model.used() > 0) page.by_layer.push_back(loaded.activations);
    }
  }
  auto& by_layer = page.by_layer;
  std::sort(by_layer.begin(), by_layer.end(),
            [](const auto& a, const auto& b) { return a->used() > b->used(); });
  const size_t most = static_cast<size_t>(options_.shown.models);
  if (by_layer.size() > most) by_layer.resize(most);
  return ActivationPage(page, options_.max_series);
}

}  // namespace qk
