#include "server/convert/convert_arms.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/may_park.h"
#include "engine/types/rule_shape.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"
#include "server/convert/convert_rule.h"
#include "server/convert/presets.h"

namespace qk {
namespace {

constexpr size_t kMaxArmName = 64;

absl::Status CheckArmName(absl::string_view field, absl::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(c) ||
           absl::string_view("_-.:,=/").find(c) != absl::string_view::npos;
  };
  if (!name.empty() && name.size() <= kMaxArmName &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return absl::OkStatus();
  }
  return BadField(absl::StrCat(field, ".name"),
                  absl::StrCat("must be 1 to 64 letters, digits or "
                               "`_-.:,=/`, got '",
                               Echo(name), "'"));
}

// Which rule owns each (tensor, query head) of each layer, in the text model
// and in the vision tower. A KV head counts as all query heads of its group, so
// that rules of both groupings can be compared.
class Ownership {
 public:
  // `names`: the rules' paths.
  Ownership(const ModelConfig& config, const std::vector<std::string>& names)
      : config_(config), names_(names) {
    for (bool vision : {false, true}) {
      for (int i = 0; i < config.num_layers(vision); ++i) {
        layers_[vision].emplace_back(3 * config.attention(vision, i).num_heads,
                                     -1);
      }
    }
  }

  // Gives a rule its heads. Fails if another rule owns one of them, and names
  // the first such head.
  absl::Status Take(int index, const DisruptionRule& rule) {
    for (int layer : rule.layers) {
      for (Qkv tensor : rule.tensors) {
        QK_RETURN_IF_ERROR(TakeTensor(index, rule, layer, tensor));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status TakeTensor(int index, const DisruptionRule& rule, int layer,
                          Qkv tensor) {
    const AttentionConfig& attention = config_.attention(rule.vision, layer);
    const int heads = RuleHeads(rule, tensor, attention);
    const int copies = attention.num_heads / heads;
    const int count = rule.heads.empty() ? heads : rule.heads.size();
    for (int i = 0; i < count; ++i) {
      const int head = rule.heads.empty() ? i : rule.heads[i];
      for (int copy = 0; copy < copies; ++copy) {
        int& owner = layers_[rule.vision][layer]
                            [static_cast<int>(tensor) * attention.num_heads +
                             head * copies + copy];
        if (owner >= 0) {
          return absl::InvalidArgumentError(absl::StrFormat(
              "%s: overlaps %s at layer %d, %s, head %d", names_[index],
              names_[owner], layer, QkvName(tensor), head));
        }
        owner = index;
      }
    }
    return absl::OkStatus();
  }

  const ModelConfig& config_;
  const std::vector<std::string>& names_;
  // The owner's index or -1, by [vision][layer][tensor, query head].
  std::vector<std::vector<int>> layers_[2];
};

bool SameAttention(const ModelConfig& a, const ModelConfig& b) {
  return std::equal(
      a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
      [](const LayerConfig& x, const LayerConfig& y) {
        return x.attention.num_heads == y.attention.num_heads &&
               x.attention.num_kv_heads == y.attention.num_kv_heads &&
               x.attention.head_dim == y.attention.head_dim;
      });
}

// Finds the model that the arm uses instead of the request's, for example a
// quantized one. Tokens and captured shapes must mean the same in both.
absl::StatusOr<ModelView> FindVariant(const pb::Arm& arm,
                                      absl::string_view field,
                                      const ModelView& base,
                                      const ConvertContext& context) {
  if (!arm.has_model()) return base;
  const std::string name = absl::StrCat(field, ".model");
  QK_RETURN_IF_ERROR(CheckModelName(name, arm.model()));
  auto variant = context.find_model(arm.model());
  if (!variant.ok()) {
    return PrefixField(name, variant.status());
  }
  const auto differs = [&](absl::string_view what) {
    return BadField(name, absl::StrCat("'", arm.model(), "' and '", base.name,
                                       "' differ in ", what));
  };
  if (variant->config->vocab_size != base.config->vocab_size) {
    return differs("vocabulary");
  }
  const auto digest = [](const ModelView& view) {
    return view.tokenizer == nullptr ? "" : view.tokenizer->sha256_hex();
  };
  if (digest(*variant) != digest(base)) return differs("tokenizer");
  if (!SameAttention(*variant->config, *base.config)) {
    return differs("layers or heads");
  }
  if (variant->config->context_length < base.config->context_length) {
    return differs("context length");
  }
  return variant;
}

absl::Status AppendRule(const pb::DisruptionRule& rule, absl::string_view field,
                        const ModelView& model, int prompt_tokens,
                        const Limits& limits, ConvertedArm* out) {
  MayPark(kManySteps);
  QK_ASSIGN_OR_RETURN(
      DisruptionRule converted,
      ConvertRule(rule, field, *model.config, prompt_tokens, limits));
  *out->expanded.add_disruptions() = RuleToProto(converted);
  out->spec.rules.push_back(std::move(converted));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertedArm> ConvertArm(const pb::Arm& arm,
                                        absl::string_view field,
                                        const ModelView& model,
                                        int prompt_tokens,
                                        const ConvertContext& context) {
  const Limits& limits = context.limits;
  QK_RETURN_IF_ERROR(CheckArmName(field, arm.name()));
  QK_RETURN_IF_ERROR(CheckCount(absl::StrCat(field, ".disruptions"),
                                arm.disruptions_size(),
                                limits.max_rules_per_arm));
  QK_ASSIGN_OR_RETURN(const ModelView variant,
                      FindVariant(arm, field, model, context));
  ConvertedArm out;
  out.spec.name = arm.name();
  out.model = variant;
  out.spec.model = variant.model;
  out.expanded.set_name(arm.name());
  if (arm.has_model()) out.expanded.set_model(arm.model());
  std::vector<std::string> names;
  for (int i = 0; i < arm.disruptions_size(); ++i) {
    names.push_back(absl::StrFormat("%s.disruptions[%d]", field, i));
    QK_RETURN_IF_ERROR(AppendRule(arm.disruptions(i), names.back(), variant,
                                  prompt_tokens, limits, &out));
  }
  if (arm.has_preset()) {
    const std::string path = absl::StrCat(field, ".preset");
    QK_ASSIGN_OR_RETURN(const auto rules,
                        ExpandPreset(arm.preset(), path, *variant.config));
    for (const pb::DisruptionRule& rule : rules) {
      names.push_back(path);
      // The path goes on in a rule that the request does not have.
      const absl::Status status = AppendRule(rule, arm.preset().name(), variant,
                                             prompt_tokens, limits, &out);
      if (!status.ok()) return PrefixField(path, status);
    }
  }
  Ownership owners(*variant.config, names);
  for (size_t i = 0; i < out.spec.rules.size(); ++i) {
    QK_RETURN_IF_ERROR(owners.Take(static_cast<int>(i), out.spec.rules[i]));
  }
  return out;
}

absl::StatusOr<std::vector<ConvertedArm>> ConvertArms(
    const google::protobuf::RepeatedPtrField<pb::Arm>& arms,
    const ModelView& model, int prompt_tokens, const ConvertContext& context) {
  QK_RETURN_IF_ERROR(CheckCount("arms", arms.size(), context.limits.max_arms));
  std::vector<ConvertedArm> out;
  if (arms.empty()) {
    pb::Arm clean;
    clean.set_name("clean");
    QK_ASSIGN_OR_RETURN(out.emplace_back(), ConvertArm(clean, "arms[0]", model,
                                                       prompt_tokens, context));
    return out;
  }
  std::map<std::string, int> used;
  for (int i = 0; i < arms.size(); ++i) {
    const std::string field = absl::StrFormat("arms[%d]", i);
    QK_ASSIGN_OR_RETURN(out.emplace_back(), ConvertArm(arms[i], field, model,
                                                       prompt_tokens, context));
    const auto [it, inserted] = used.emplace(arms[i].name(), i);
    if (!inserted) {
      return BadField(absl::StrCat(field, ".name"),
                      absl::StrFormat("'%s' is used by arms[%d]",
                                      arms[i].name(), it->second));
    }
  }
  return out;
}

}  // namespace qk
