#include "server/observe/recent_activations.h"

#include <algorithm>
#include <iterator>

#include "engine/base/monotonic.h"

namespace qk {
namespace {

std::optional<Qkv> TensorOf(HookPoint point) {
  switch (point) {
    case HookPoint::kRotQ:
      return Qkv::kQ;
    case HookPoint::kRotK:
      return Qkv::kK;
    case HookPoint::kV:
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

void RecentActivations::Add(uint64_t run, int arm_index, ArmKind arm,
                            const std::string& model, const LayerFrame& frame) {
  const std::optional<Qkv> tensor = TensorOf(frame.point);
  if (!tensor.has_value() || !frame.statistics.has_value()) return;
  MutexLock lock(&mutex_);
  std::deque<Entry>& prompts = RingOf(model).prompts;
  // Runs that share the device are among the last ones.
  auto entry = std::find_if(
      prompts.rbegin(), prompts.rend(), [run, arm_index](const Entry& known) {
        return known.run == run && known.arm_index == arm_index;
      });
  if (entry == prompts.rend()) {
    if (prompts.size() >= kPrompts) prompts.pop_front();
    prompts.push_back({run, arm_index, {}});
    entry = prompts.rbegin();
    entry->prompt.arm = arm;
    entry->prompt.at = MonotonicNow();
  }
  std::vector<int>& layers = entry->prompt.counts[static_cast<size_t>(*tensor)];
  const auto layer = static_cast<size_t>(frame.layer);
  if (layer >= layers.size()) {
    layers.resize(layer + 1, RecentPrompt::kNotCaptured);
  }
  layers[layer] = frame.statistics->non_finite_count > 0
                      ? RecentPrompt::kNotFinite
                      : frame.statistics->massive_count;
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
