// A disruption rule as ops take it, with the device memory it points to.
#ifndef QKSCOPE_TESTS_ENGINE_BACKEND_DEVICE_RULE_H_
#define QKSCOPE_TESTS_ENGINE_BACKEND_DEVICE_RULE_H_

#include <vector>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {

class DeviceRule {
 public:
  DeviceRule(Backend& backend, const DisruptionRule& rule,
             const std::vector<HeadRole>& roles)
      : entries_(backend, rule.entries), roles_(backend, roles) {
    plain_.select = rule.select;
    plain_.k = rule.k;
    plain_.exclude_top = rule.exclude_top;
    plain_.seed = rule.seed;
    plain_.lambda = rule.lambda;
    plain_.num_entries = static_cast<int>(rule.entries.size());
    plain_.entries = entries_.data();
    plain_.replace = rule.replace;
    plain_.factor = rule.factor;
    plain_.num_heads = static_cast<int>(roles.size());
    plain_.heads = roles_.data();
  }

  const TensorRule& plain() const { return plain_; }

 private:
  DeviceVector<HeadDim> entries_;
  DeviceVector<HeadRole> roles_;
  TensorRule plain_;
};

struct Chosen {
  std::vector<uint8_t> mask;
  std::vector<float> values;
};

// Returns what SelectDims makes of moments (roles.size(), head_dim).
inline Chosen Select(Backend& backend, const DisruptionRule& rule,
                     const std::vector<HeadRole>& roles,
                     const std::vector<double>& squares,
                     const std::vector<double>& sums, int64_t count) {
  const DeviceRule device_rule(backend, rule, roles);
  const DeviceVector<double> device(backend, squares),
      device_sums(backend, sums);
  DeviceVector<uint8_t> mask(backend, squares.size());
  DeviceVector<float> values(backend, squares.size());
  backend.SelectDims(
      {SelectJob{.rule = device_rule.plain(),
                 .from = {device.data(), device_sums.data()},
                 .count = count,
                 .head_dim = static_cast<int>(squares.size() / roles.size()),
                 .to = {mask.data(), values.data()}}});
  return {mask.Read(), values.Read()};
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_BACKEND_DEVICE_RULE_H_
