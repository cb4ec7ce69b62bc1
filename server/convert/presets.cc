#include "server/convert/presets.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

using Rule = ::qkscope::v1::DisruptionRule;
using Rules = std::vector<Rule>;

// What all presets have in common: they act after RoPE, on Q and K of every
// layer, in prefill only.
Rule AfterRope(Rule::KvGrouping grouping, Rule::KvCache cache) {
  Rule rule;
  rule.add_tensors(::qkscope::v1::QKV_TENSOR_Q);
  rule.add_tensors(::qkscope::v1::QKV_TENSOR_K);
  rule.set_point(Rule::POST_ROPE);
  rule.set_axis(Rule::PER_HEAD);
  rule.set_replace(Rule::POOLED_MEAN);
  rule.set_kv_grouping(grouping);
  rule.set_kv_cache(cache);
  rule.set_phase(::qkscope::v1::PREFILL);
  return rule;
}

// The published code writes K to the cache before the disruption, but the cache
// holds the same tensor, which is then changed in place. So K persists.
Rules Llama(bool control) {
  Rule rule = AfterRope(Rule::KV_HEAD, Rule::PERSIST);
  if (control) {
    rule.mutable_bottom_k()->set_k(1);
  } else {
    rule.mutable_top_k()->set_k(1);
  }
  return {rule};
}

// The published code first expands K to the query heads, which makes a copy. So
// the cache stays clean.
Rules Qwen2(bool control) {
  Rule rule = AfterRope(Rule::QUERY_HEAD, Rule::ATTENTION_ONLY);
  if (control) {
    rule.mutable_bottom_k()->set_k(3);
  } else {
    rule.mutable_top_k()->set_k(3);
  }
  return {rule};
}

Rules Mistral(bool control, uint64_t seed) {
  Rule rule = AfterRope(Rule::QUERY_HEAD, Rule::ATTENTION_ONLY);
  if (control) {
    rule.mutable_random_k()->set_k(1);
    rule.mutable_random_k()->set_exclude_top(1);
    rule.mutable_random_k()->set_seed(seed);
  } else {
    rule.mutable_top_k()->set_k(1);
  }
  return {rule};
}

// 22 of the 256 dims per token. In the published code, the cache returns the
// stored tensor in global layers, so K persists there, and a copy in
// sliding-window layers.
Rules Gemma2(bool control, const ModelConfig& config) {
  Rules rules;
  for (const bool sliding : {false, true}) {
    Rule rule = AfterRope(Rule::KV_HEAD,
                          sliding ? Rule::ATTENTION_ONLY : Rule::PERSIST);
    rule.set_axis(Rule::PER_TOKEN);
    if (control) {
      rule.mutable_bottom_k()->set_k(22);
    } else {
      rule.mutable_top_k()->set_k(22);
      rule.set_replace(Rule::ZERO);
    }
    for (int layer = 0; layer < config.num_layers(); ++layer) {
      const auto& window = config.layers[layer].attention.sliding_window;
      if (config.has_attention(layer) && window.has_value() == sliding) {
        rule.add_layers(layer);
      }
    }
    if (!rule.layers().empty()) rules.push_back(rule);
  }
  return rules;
}

struct Family {
  const char* name;
  std::function<Rules(bool control, uint64_t seed, const ModelConfig&)> rules;
};

std::vector<Family> Families() {
  return {
      {"rope_with_llm/llama",
       [](bool control, uint64_t, const ModelConfig&) {
         return Llama(control);
       }},
      {"rope_with_llm/mistral",
       [](bool control, uint64_t seed, const ModelConfig&) {
         return Mistral(control, seed);
       }},
      {"rope_with_llm/qwen2",
       [](bool control, uint64_t, const ModelConfig&) {
         return Qwen2(control);
       }},
      {"rope_with_llm/gemma2",
       [](bool control, uint64_t, const ModelConfig& config) {
         return Gemma2(control, config);
       }},
  };
}

constexpr char kControl[] = "/control";

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const Family& family : Families()) {
    names.push_back(family.name);
    names.push_back(absl::StrCat(family.name, kControl));
  }
  return names;
}

absl::StatusOr<Rules> ExpandPreset(const ::qkscope::v1::Preset& preset,
                                   absl::string_view field,
                                   const ModelConfig& config) {
  for (const Family& family : Families()) {
    if (preset.name() == family.name) {
      return family.rules(false, preset.seed(), config);
    }
    if (preset.name() == absl::StrCat(family.name, kControl)) {
      return family.rules(true, preset.seed(), config);
    }
  }
  return BadField(
      absl::StrCat(field, ".name"),
      absl::StrCat("unknown preset '", Echo(preset.name()), "' (one of ",
                   absl::StrJoin(PresetNames(), ", "), ")"));
}

}  // namespace qk
