#include "server/observe/recent_activations.h"

#include <algorithm>
#include <iterator>

#include "engine/base/monotonic.h"

namespace qk {
namespace {

std::optional<Qkv> TensorOf(ActivationMatrix matrix) {
  switch (matrix) {
    case ActivationMatrix::kQAfter:
      return Qkv::kQ;
    case ActivationMatrix::kKAfter:
      return Qkv::kK;
    case ActivationMatrix::kV:
      return Qkv::kV;
    default:
      return std::nullopt;
  }
}

}  // namespace

int RecentPrompt::num_layers() const {
  size_t most = 0;
  for (const std::vector<int>& layers : counts) {
    most = std::max(most, layers.size());
  }
  return static_cast<int>(most);
}

RecentActivations::Ring& RecentActivations::RingOf(const std::string& model) {
  const auto known =
      std::find_if(models_.begin(), models_.end(),
                   [&model](const Ring& ring) { return ring.model == model; });
  if (known != models_.end()) {
    models_.splice(models_.begin(), models_, known);
  } else {
    if (models_.size() >= kModels) models_.pop_back();
    models_.push_front({model, {}});
  }
  return models_.front();
}

void RecentActivations::Add(const ArmOfRun& arm, const std::string& model,
                            ActivationMatrix matrix, int layer,
                            const ActivationGauges& gauges) {
  const std::optional<Qkv> tensor = TensorOf(matrix);
  if (!tensor.has_value()) return;
  MutexLock lock(&mutex_);
  std::deque<Entry>& prompts = RingOf(model).prompts;
  // Runs that share the device are among the last ones.
  auto entry = std::find_if(
      prompts.rbegin(), prompts.rend(), [&arm](const Entry& known) {
        return known.run == arm.run && known.arm == arm.index;
      });
  if (entry == prompts.rend()) {
    if (prompts.size() >= kPrompts) prompts.pop_front();
    prompts.push_back({arm.run, arm.index, {}});
    entry = prompts.rbegin();
    entry->prompt.arm = arm.kind;
    entry->prompt.at = MonotonicNow();
  }
  std::vector<int>& layers = entry->prompt.counts[static_cast<size_t>(*tensor)];
  const auto index = static_cast<size_t>(layer);
  if (index >= layers.size()) {
    layers.resize(index + 1, RecentPrompt::kNotCaptured);
  }
  layers[index] =
      gauges.non_finite > 0 ? RecentPrompt::kNotFinite : gauges.massive;
}

void RecentActivations::Forget(const std::string& model) {
  MutexLock lock(&mutex_);
  models_.remove_if([&model](const Ring& ring) { return ring.model == model; });
}

std::vector<RecentModel> RecentActivations::Read(
    const std::function<bool(const std::string& model)>& may_see) const {
  std::vector<RecentModel> out;
  MutexLock lock(&mutex_);
  for (const Ring& ring : models_) {
    if (!may_see(ring.model)) continue;
    RecentModel& model = out.emplace_back();
    model.model = ring.model;
    model.prompts.reserve(ring.prompts.size());
    std::transform(ring.prompts.begin(), ring.prompts.end(),
                   std::back_inserter(model.prompts),
                   [](const Entry& entry) { return entry.prompt; });
  }
  return out;
}

}  // namespace qk
