// The steps of converting a disruption rule from proto to the engine's form.
#ifndef QKSCOPE_SERVER_CONVERT_RULE_CONVERTER_H_
#define QKSCOPE_SERVER_CONVERT_RULE_CONVERTER_H_

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/types/model_config.h"
#include "engine/types/rule_shape.h"
#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"
#include "server/common/limits.h"
#include "server/convert/convert_rule.h"

namespace qk {

// A rule that is being converted. Each step reads fields of `in` and fills
// `out`; ConvertRule calls them in the order in which they depend on each
// other.
struct RuleConverter {
  const pb::DisruptionRule& in;
  const std::string field;
  const ModelConfig& config;
  const Range prompt;
  const Limits& limits;
  DisruptionRule out = {};

  absl::Status Tower();
  absl::Status Tensors();
  absl::Status Enums();
  absl::Status Layers();
  absl::Status Heads();
  absl::Status Select();
  absl::Status RandomK();
  absl::Status Explicit();
  absl::Status CheckK(absl::string_view name, int k);
  absl::Status Factor();
  absl::Status Spans();
  absl::Status Combinations();

  std::string Sub(absl::string_view name) const {
    return absl::StrCat(field, ".", name);
  }
  // The smallest size in the chosen layers. 0: the model has no layers with
  // attention.
  int Smallest(const std::function<int(const AttentionConfig&)>& size) const {
    if (out.layers.empty()) return 0;
    int smallest = std::numeric_limits<int>::max();
    for (int layer : out.layers) {
      smallest = std::min(smallest, size(config.attention(out.vision, layer)));
    }
    return smallest;
  }
  int HeadDim() const {
    return Smallest([](const AttentionConfig& a) { return a.head_dim; });
  }
  // The number of heads that the tensor has in every chosen layer.
  int HeadsOf(Qkv tensor) const {
    return Smallest(
        [&](const AttentionConfig& a) { return RuleHeads(out, tensor, a); });
  }
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_RULE_CONVERTER_H_
