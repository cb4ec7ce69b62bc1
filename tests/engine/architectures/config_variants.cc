#include "tests/engine/architectures/config_variants.h"

#include <cstdint>
#include <cstdlib>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace qk::testing {
namespace {

// Values that have a meaning in a field of this name.
struct KnownValues {
  absl::string_view field;
  std::vector<std::string> values;
};

const std::vector<KnownValues>& AllKnownValues() {
  static const std::vector<std::string> activations = {
      "silu", "gelu", "gelu_new", "relu", "quick_gelu"};
  static const std::vector<std::string> ropes = {
      "default", "linear", "dynamic", "llama3", "yarn", "longrope", "mrope"};
  static const std::vector<std::string> kinds = {"global", "local"};
  static const std::vector<KnownValues> all = {
      {"hidden_act", activations},
      {"hidden_activation", activations},
      {"activation_function", activations},
      {"rope_type", ropes},
      {"type", ropes},
      {"layer_types", {"full_attention", "sliding_attention"}},
      {"attention_layers", kinds},
      {"attention_types", kinds},
      {"model_type",
       {"gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox",
        "jamba", "llama", "mistral", "opt", "phi3", "qwen2", "qwen2_vl",
        "qwen3"}},
      {"quant_method", {"awq", "gptq"}},
      {"version", {"gemm", "gemv", "marlin"}},
      {"checkpoint_format", {"gptq", "gptq_v2", "marlin"}},
      {"pack_dtype", {"int32", "int16"}}};
  return all;
}

// Fields that change the model in a family that has them.
struct Added {
  absl::string_view field;
  absl::string_view text;
};

constexpr Added kAdded[] = {
    {"_remove_final_layer_norm", "true"},
    {"_sliding_window_pattern", "1"},
    {"activation_function", "\"relu\""},
    {"add_cross_attention", "true"},
    {"attention_bias", "true"},
    {"attention_multiplier", "2.0"},
    {"attn_logit_softcapping", "1.5"},
    {"auto_map", "{\"AutoModelForCausalLM\": \"modeling_mine.MyModel\"}"},
    {"do_layer_norm_before", "false"},
    {"embedding_multiplier", "2.0"},
    {"enable_bias", "false"},
    {"final_logit_softcapping", "1.5"},
    {"full_attn_mod", "2"},
    {"head_dim", "6"},
    {"hidden_act", "\"relu\""},
    {"hidden_activation", "\"relu\""},
    {"intermediate_size", "5"},
    {"interpolate_factor", "2"},
    {"is_causal", "false"},
    {"layer_norm_elementwise_affine", "false"},
    {"layer_norm_eps", "0.1"},
    {"layer_norm_epsilon", "0.1"},
    {"layer_types", "[\"sliding_attention\", \"sliding_attention\"]"},
    {"lm_head_bias", "true"},
    {"logit_scale", "2.0"},
    {"mamba_inner_layernorms", "false"},
    {"max_window_layers", "0"},
    {"mlp_bias", "true"},
    {"mrope_section", "[1, 1, 2]"},
    {"n_inner", "5"},
    {"num_experts", "3"},
    {"num_key_value_heads", "1"},
    {"num_local_experts", "3"},
    {"original_max_position_embeddings", "16"},
    {"partial_rotary_factor", "0.5"},
    {"pruned_heads", "{\"0\": [1]}"},
    {"quantization_config", "{\"quant_method\": \"awq\", \"bits\": 4}"},
    {"query_pre_attn_scalar", "7"},
    {"rms_norm_eps", "0.1"},
    {"rope_interleaved", "true"},
    {"rope_local_base_freq", "7.0"},
    {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 7.0}"},
    {"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2.0}"},
    {"rope_theta", "7.0"},
    {"rotary_emb_base", "7"},
    {"rotary_pct", "0.5"},
    {"scale_attn_by_inverse_layer_idx", "true"},
    {"scale_attn_weights", "false"},
    {"sliding_window", "3"},
    {"sliding_window_pattern", "1"},
    {"sliding_window_size", "3"},
    {"text_config", "{}"},
    {"tie_word_embeddings", "false"},
    {"tie_word_embeddings", "true"},
    {"use_bidirectional_attention", "true"},
    {"use_mrope", "true"},
    {"use_parallel_residual", "false"},
    {"use_sliding_window", "true"},
    {"window_size", "3"},
    {"word_embed_proj_dim", "8"},
};

// Returns whether these are two names of one function.
bool IsSameFunction(absl::string_view a, absl::string_view b) {
  return absl::StartsWith(a, "gelu_") && absl::StartsWith(b, "gelu_");
}

Json Scalar(JsonType type, std::string text) {
  Json json;
  json.type = type;
  json.scalar = std::move(text);
  return json;
}

Json Number(std::string text) {
  return Scalar(JsonType::kNumber, std::move(text));
}

class Generator {
 public:
  explicit Generator(const Json& config) : root_(config) {}

  std::vector<Variant> Run() {
    Inside(root_, "", "");
    Additions(root_, "");
    for (auto& [key, member] : root_.members) {
      if (key == "text_config") Additions(member, "text_config.");
    }
    return std::move(variants_);
  }

 private:
  void Add(const std::string& path, std::string change, std::string before) {
    variants_.push_back(
        {path, std::move(change), std::move(before), Text(root_)});
  }

  // `path`: the place of `node`, with a dot.
  void Additions(Json& node, const std::string& path) {
    for (const Added& added : kAdded) {
      const auto has = [&](const auto& m) { return m.name == added.field; };
      if (absl::c_any_of(node.members, has)) continue;
      node.members.push_back(
          {std::string(added.field), Number(std::string(added.text))});
      Add(absl::StrCat(path, added.field), absl::StrCat("added ", added.text),
          "");
      node.members.pop_back();
    }
  }

  void Replace(Json& node, const std::string& path, const Json& by,
               absl::string_view change) {
    const Json kept = node;
    node = by;
    if (Text(node) != Text(kept)) {
      Add(path, std::string(change), Text(kept));
    }
    node = kept;
  }

  void Numbers(Json& node, const std::string& path) {
    int64_t integer = 0;
    if (absl::SimpleAtoi(node.scalar, &integer)) {
      Replace(node, path, Number(absl::StrCat(integer + 1)), "+ 1");
      Replace(node, path, Number(absl::StrCat(integer * 2)), "x 2");
      Replace(node, path, Number("0"), "= 0");
      Replace(node, path, Number("-1"), "= -1");
      return;
    }
    const double value = std::strtod(node.scalar.c_str(), nullptr);
    const double other = value == 0 ? 0.5 : value * 1.5;
    Replace(node, path, Number(absl::StrFormat("%.17g", other)), "x 1.5");
  }

  void Strings(Json& node, const std::string& path, absl::string_view field) {
    for (const KnownValues& known : AllKnownValues()) {
      if (known.field != field) continue;
      for (const std::string& value : known.values) {
        if (IsSameFunction(node.scalar, value)) continue;
        Replace(node, path, Scalar(JsonType::kString, value),
                absl::StrCat("= \"", value, "\""));
      }
    }
    Replace(node, path, Scalar(JsonType::kString, "nonsense"),
            "= \"nonsense\"");
  }

  void Value(Json& node, const std::string& path, absl::string_view field) {
    switch (node.type) {
      case JsonType::kNull:
        Replace(node, path, Number("1"), "= 1");
        Replace(node, path, Number("0.5"), "= 0.5");
        Replace(node, path, Scalar(JsonType::kBool, "true"), "= true");
        Replace(node, path, Scalar(JsonType::kString, "nonsense"),
                "= \"nonsense\"");
        break;
      case JsonType::kBool:
        Replace(
            node, path,
            Scalar(JsonType::kBool, node.scalar == "true" ? "false" : "true"),
            "flipped");
        break;
      case JsonType::kNumber:
        Numbers(node, path);
        break;
      case JsonType::kString:
        Strings(node, path, field);
        break;
      case JsonType::kArray:
      case JsonType::kObject:
        Inside(node, path, field);
        break;
    }
    Replace(node, path, Json{}, "= null");
  }

  // `field`: the name of the member whose value contains `node`.
  void Inside(Json& node, const std::string& path, absl::string_view field) {
    const bool is_array = node.type == JsonType::kArray;
    for (size_t i = 0; i < node.members.size(); ++i) {
      const std::string key = node.members[i].name;
      const std::string inner =
          is_array ? absl::StrCat(path, "[", i, "]")
                   : absl::StrCat(path, path.empty() ? "" : ".", key);
      Value(node.members[i].value, inner,
            is_array ? field : absl::string_view(key));
      const auto kept = node.members[i];
      node.members.erase(node.members.begin() + i);
      Add(inner, "removed", Text(kept.value));
      node.members.insert(node.members.begin() + i, kept);
    }
    if (is_array) return;
    node.members.push_back({"nonsense", Number("1")});
    Add(absl::StrCat(path, path.empty() ? "" : ".", "nonsense"), "added", "");
    node.members.pop_back();
  }

  Json root_;
  std::vector<Variant> variants_;
};

}  // namespace

Json MakeJson(const JsonValue& value) {
  Json json;
  json.type = value.type();
  if (value.is_object()) {
    const auto status =
        value.ForEachMember([&](absl::string_view key, JsonValue member) {
          json.members.push_back({std::string(key), MakeJson(member)});
          return absl::OkStatus();
        });
  } else if (value.is_array()) {
    const auto status = value.ForEachElement([&](JsonValue element) {
      json.members.push_back({"", MakeJson(element)});
      return absl::OkStatus();
    });
  } else if (value.is_string()) {
    json.scalar = std::string(*value.AsString());
  } else if (value.is_number()) {
    const auto integer = value.AsInt64();
    json.scalar = integer.ok() ? absl::StrCat(*integer)
                               : absl::StrFormat("%.17g", *value.AsDouble());
    // 1.0 must not become an integer.
    if (!integer.ok() && json.scalar.find_first_of(".e") == std::string::npos) {
      json.scalar += ".0";
    }
  } else if (!value.is_null()) {
    json.scalar = *value.AsBool() ? "true" : "false";
  }
  return json;
}

std::string Text(const Json& json) {
  if (json.type == JsonType::kNull) return "null";
  if (json.type == JsonType::kString) {
    return absl::StrCat("\"", json.scalar, "\"");  // ours need no escapes
  }
  if (json.type != JsonType::kArray && json.type != JsonType::kObject) {
    return json.scalar;
  }
  const bool is_array = json.type == JsonType::kArray;
  std::string text = is_array ? "[" : "{";
  for (const auto& [key, member] : json.members) {
    if (text.size() > 1) text += ", ";
    if (!is_array) absl::StrAppend(&text, "\"", key, "\": ");
    text += Text(member);
  }
  return text + (is_array ? "]" : "}");
}

std::vector<Variant> Variants(const Json& config) {
  return Generator(config).Run();
}

}  // namespace qk::testing
