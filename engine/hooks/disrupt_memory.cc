// The device memory of a sequence's rules, and the rules as ops take them.
#include <vector>

#include "engine/base/check.h"
#include "engine/hooks/disrupt.h"

namespace qk {
namespace {

using Rule = DisruptionRule;

// A copy of `values` in device memory.
template <typename T>
absl::StatusOr<DeviceBuffer> UploadAll(const std::vector<T>& values,
                                       Backend* backend) {
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
  QK_ASSIGN_OR_RETURN(DeviceBuffer buffer, backend->Allocate(bytes));
  backend->Upload(buffer.as<void>(), values.data(), bytes);
  return buffer;
}

}  // namespace

int64_t Disruptor::bytes() const {
  if (states_.empty()) return 0;
  return state_bytes_ + num_roles_ * int64_t{sizeof(HeadRole)} +
         num_entries_ * int64_t{sizeof(HeadDim)};
}

absl::Status Disruptor::Reserve(Backend* backend) {
  backend_ = backend;
  if (states_.empty()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(memory_, backend->Allocate(state_bytes_));
  backend->Zero(memory_.as<void>(), state_bytes_);
  QK_RETURN_IF_ERROR(MakeTensorRules());
  for (State& s : states_) {
    if (s.rule->axis == Rule::Axis::kPerToken) continue;
    uint8_t* base = memory_.as<uint8_t>() + s.offset;
    const int64_t n = s.size();
    s.moments.squares = reinterpret_cast<double*>(base);
    s.moments.sums = s.moments.squares + n;
    s.choice.values = reinterpret_cast<float*>(s.moments.sums + n);
    s.choice.mask = reinterpret_cast<uint8_t*>(s.choice.values + n);
  }
  return absl::OkStatus();
}

absl::Status Disruptor::MakeTensorRules() {
  std::vector<HeadRole> roles;
  std::vector<HeadDim> entries;
  std::vector<int64_t> first_entry(rules_.size());
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (rules_[i].vision != (image_ >= 0)) continue;
    first_entry[i] = static_cast<int64_t>(entries.size());
    entries.insert(entries.end(), rules_[i].entries.begin(),
                   rules_[i].entries.end());
  }
  for (const State& s : states_) {
    roles.insert(roles.end(), s.heads.begin(), s.heads.end());
  }
  QK_ASSIGN_OR_RETURN(roles_, UploadAll(roles, backend_));
  QK_ASSIGN_OR_RETURN(entries_, UploadAll(entries, backend_));
  const HeadRole* heads = roles_.as<HeadRole>();
  for (State& s : states_) {
    const Rule& rule = *s.rule;
    s.tensor_rule = {
        .select = rule.select,
        .k = rule.k,
        .exclude_top = rule.exclude_top,
        .seed = rule.seed,
        .lambda = rule.lambda,
        .num_entries = static_cast<int>(rule.entries.size()),
        .entries = entries_.as<HeadDim>() + first_entry[s.rule_index],
        .replace = rule.replace,
        .factor = rule.factor,
        .tensor = s.tensor,
        .layer = s.layer,
        .num_heads = static_cast<int>(s.heads.size()),
        .heads = heads};
    heads += s.heads.size();
  }
  return absl::OkStatus();
}

}  // namespace qk
