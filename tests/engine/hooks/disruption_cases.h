// Reads tests/goldens/disruption/cases.json and the outputs beside it
// (tests/goldens/make_disruption_goldens.py).
#ifndef QKSCOPE_TESTS_ENGINE_HOOKS_DISRUPTION_CASES_H_
#define QKSCOPE_TESTS_ENGINE_HOOKS_DISRUPTION_CASES_H_

#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

inline Range ReadSpan(const JsonValue& rule, const char* key, Range missing) {
  const std::optional<JsonValue> span = rule.Find(key);
  if (!span.has_value()) return missing;
  const std::vector<int32_t> ends = Ids(*span);
  return {ends[0], ends[1]};
}

inline std::string TextOr(const JsonValue& object, const char* key,
                          const char* missing) {
  return std::string(object.GetStringOr(key, missing).value());
}

inline Qkv TensorFrom(absl::string_view name) {
  return name == "q" ? Qkv::kQ : name == "k" ? Qkv::kK : Qkv::kV;
}

inline void ReadSelect(const JsonValue& rule, DisruptionRule* out) {
  const JsonValue select = rule.Get("select").value();
  const auto status = select.ForEachMember(
      [&](absl::string_view kind, JsonValue v) -> absl::Status {
        out->k = static_cast<int>(v.GetInt64Or("k", 0).value());
        if (kind == "top_k") out->select = DisruptionRule::Select::kTopK;
        if (kind == "bottom_k") out->select = DisruptionRule::Select::kBottomK;
        if (kind == "random_k") {
          out->select = DisruptionRule::Select::kRandomK;
          const std::optional<JsonValue> seed = v.Find("seed");
          out->seed = seed.has_value() ? seed->AsUint64().value() : 0;
          out->exclude_top =
              static_cast<int>(v.GetInt64Or("exclude_top", out->k).value());
        }
        if (kind == "threshold") {
          out->select = DisruptionRule::Select::kThreshold;
          out->lambda = v.GetDoubleOr("lambda", 5.0).value();
        }
        if (kind == "explicit") {
          out->select = DisruptionRule::Select::kExplicit;
          return v.GetArray("entries").value().ForEachElement(
              [&](JsonValue e) -> absl::Status {
                out->entries.push_back(
                    {static_cast<int>(e.GetInt64("head").value()),
                     static_cast<int>(e.GetInt64("dim").value())});
                return absl::OkStatus();
              });
        }
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

inline PhaseSet PhaseFrom(const std::string& name) {
  return name == "prefill" ? 1u : name == "decode" ? 2u : 3u;
}

inline DisruptionRule ReadRule(const JsonValue& json, int layers, int tokens) {
  DisruptionRule rule;
  if (json.Find("tensors").has_value()) {
    rule.tensors.clear();
    EXPECT_TRUE(json.GetArray("tensors")
                    .value()
                    .ForEachElement([&](JsonValue t) -> absl::Status {
                      rule.tensors.push_back(TensorFrom(t.AsString().value()));
                      return absl::OkStatus();
                    })
                    .ok());
  }
  if (TextOr(json, "point", "post_rope") == "pre_rope") {
    rule.point = DisruptionRule::Point::kPreRope;
  }
  ReadSelect(json, &rule);
  if (TextOr(json, "axis", "per_head") == "per_token") {
    rule.axis = DisruptionRule::Axis::kPerToken;
  }
  const std::string replace = TextOr(json, "replace", "pooled_mean");
  rule.replace = replace == "per_dim_mean"
                     ? DisruptionRule::Replace::kPerDimMean
                 : replace == "zero"  ? DisruptionRule::Replace::kZero
                 : replace == "scale" ? DisruptionRule::Replace::kScale
                                      : DisruptionRule::Replace::kPooledMean;
  rule.factor = json.GetDoubleOr("factor", 1.0).value();
  if (TextOr(json, "kv_grouping", "kv_head") == "query_head") {
    rule.kv_grouping = DisruptionRule::KvGrouping::kQueryHead;
  }
  if (TextOr(json, "kv_cache", "persist") == "attention_only") {
    rule.kv_cache = DisruptionRule::KvCache::kAttentionOnly;
  }
  rule.phase = PhaseFrom(TextOr(json, "phase", "prefill"));
  rule.reselect = json.GetBoolOr("reselect", false).value();
  rule.stat_span = ReadSpan(json, "stat_span", {0, tokens});
  rule.positions = ReadSpan(json, "positions", rule.stat_span);
  if (json.Find("layers").has_value()) {
    rule.layers = Ids(json.Get("layers").value());
  } else {
    rule.layers.resize(layers);
    std::iota(rule.layers.begin(), rule.layers.end(), 0);
  }
  if (json.Find("heads").has_value()) {
    rule.heads = Ids(json.Get("heads").value());
  }
  return rule;
}

// Returns the rules of a case for a model of `layers` layers and a prompt of
// `tokens` tokens.
inline std::vector<DisruptionRule> ReadRules(const JsonValue& c, int layers,
                                             int tokens) {
  std::vector<DisruptionRule> rules;
  const absl::Status status = c.GetArray("rules").value().ForEachElement(
      [&](JsonValue rule) -> absl::Status {
        rules.push_back(ReadRule(rule, layers, tokens));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return rules;
}

// The cases, their outputs and the models that they name.
class DisruptionGoldenTest : public ::testing::Test {
 protected:
  DisruptionGoldenTest()
      : backend_(MakeTestBackend()),
        json_(ReadJson(GoldenPath("disruption/cases.json"))),
        outputs_(OpenSafetensors(GoldenPath("disruption/outputs.safetensors"))
                     .value()) {}

  std::shared_ptr<const Model> ModelOf(const JsonValue& c) {
    return ModelNamed(std::string(c.GetString("model").value()));
  }

  std::shared_ptr<const Model> ModelNamed(const std::string& name) {
    std::shared_ptr<const Model>& model = models_[name];
    if (model == nullptr) {
      model = LoadGolden(name, ComputeType::kF32, backend_.get());
    }
    return model;
  }

  GoldenPrompt PromptOf(const JsonValue& c) const {
    const JsonValue prompts = json_.root()
                                  .Get("prompts")
                                  .value()
                                  .Get(c.GetString("model").value())
                                  .value();
    return ReadPrompt(prompts.Get(c.GetString("prompt").value()).value());
  }

  void ForEachCase(absl::FunctionRef<void(const JsonValue&)> run) const {
    int cases = 0;
    ASSERT_TRUE(json_.root()
                    .GetArray("cases")
                    .value()
                    .ForEachElement([&](JsonValue c) -> absl::Status {
                      run(c);
                      ++cases;
                      return absl::OkStatus();
                    })
                    .ok());
    EXPECT_GE(cases, 80);
  }

  std::unique_ptr<Backend> backend_;
  JsonDocument json_;
  std::unique_ptr<TensorSource> outputs_;
  std::map<std::string, std::shared_ptr<const Model>> models_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_HOOKS_DISRUPTION_CASES_H_
