#include "engine/architectures/hf_config.h"

#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/inert_fields.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

// Read for all families: before the family's own reader runs, or by
// ReadDecoder.
constexpr absl::string_view kReadForAll[] = {
    "auto_map", "model_type", "quantization_config", "tie_word_embeddings",
    "vocab_size"};

struct NamedActivation {
  absl::string_view name;
  Activation activation;
};

// "gelu_fast" rounds sqrt(2 / pi) to ten digits, which is the same float32.
constexpr NamedActivation kActivations[] = {
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},
    {"gelu_python", Activation::kGelu},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
    {"quick_gelu", Activation::kQuickGelu},
};

absl::StatusOr<int> ReadSize(const JsonValue& config, const char* field,
                             int64_t max) {
  QK_ASSIGN_OR_RETURN(const int64_t size,
                      config.GetInt64InRange(field, 1, max));
  return static_cast<int>(size);
}

// If `missing` is 0, the field is required.
absl::StatusOr<int> ReadSizeOr(const JsonValue& config, const char* field,
                               int64_t max, int64_t missing) {
  if (missing == 0) return ReadSize(config, field, max);
  QK_ASSIGN_OR_RETURN(const int64_t size,
                      config.GetInt64InRangeOr(field, 1, max, missing));
  return static_cast<int>(size);
}

absl::StatusOr<int> ReadKvHeads(const JsonValue& config,
                                const DecoderFields& fields, int heads) {
  if (fields.kv_heads == nullptr) return heads;
  const bool as_heads =
      fields.default_kv_heads == 0 || IsNull(config, fields.kv_heads);
  QK_ASSIGN_OR_RETURN(const int kv_heads,
                      ReadSizeOr(config, fields.kv_heads, kMaxWidth,
                                 as_heads ? heads : fields.default_kv_heads));
  if (heads % kv_heads != 0) {
    return config.Error(absl::StrCat(fields.kv_heads, ": ", kv_heads,
                                     " does not divide ", fields.heads, " ",
                                     heads));
  }
  return kv_heads;
}

absl::StatusOr<int> ReadHeadDim(const JsonValue& config,
                                const DecoderFields& fields, int hidden,
                                int heads) {
  const bool written =
      fields.head_dim != nullptr && (config.Find(fields.head_dim).has_value() ||
                                     fields.default_head_dim != 0);
  if (written) {
    return ReadSizeOr(config, fields.head_dim, kMaxHeadDim,
                      fields.default_head_dim);
  }
  if (hidden % heads != 0) {
    return config.Error(absl::StrCat(fields.hidden, ": ", hidden,
                                     " is not a multiple of ", fields.heads,
                                     " ", heads));
  }
  if (hidden / heads > kMaxHeadDim) {
    return config.Error(absl::StrCat(fields.heads, ": ", heads, " heads of ",
                                     hidden / heads, " dims, limit ",
                                     kMaxHeadDim));
  }
  return hidden / heads;
}

absl::StatusOr<AttentionConfig> ReadHeads(const JsonValue& config,
                                          const DecoderFields& fields,
                                          int hidden) {
  AttentionConfig attention;
  QK_ASSIGN_OR_RETURN(
      attention.num_heads,
      ReadSizeOr(config, fields.heads, kMaxWidth, fields.default_heads));
  QK_ASSIGN_OR_RETURN(attention.num_kv_heads,
                      ReadKvHeads(config, fields, attention.num_heads));
  QK_ASSIGN_OR_RETURN(attention.head_dim,
                      ReadHeadDim(config, fields, hidden, attention.num_heads));
  attention.scale = static_cast<float>(
      1.0 / std::sqrt(static_cast<double>(attention.head_dim)));
  return attention;
}

absl::StatusOr<MlpConfig> ReadMlp(const JsonValue& config,
                                  const DecoderFields& fields, int hidden) {
  MlpConfig mlp;
  const int64_t ratio = fields.default_intermediate_ratio;
  if (ratio > 0 && !config.Find(fields.intermediate).has_value()) {
    mlp.intermediate_size = static_cast<int>(ratio * hidden);
  } else {
    QK_ASSIGN_OR_RETURN(mlp.intermediate_size,
                        ReadSize(config, fields.intermediate, kMaxWidth));
  }
  QK_ASSIGN_OR_RETURN(
      mlp.activation,
      ReadActivation(config, fields.activation, fields.default_activation));
  return mlp;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadDecoder(const JsonValue& config,
                                        const DecoderFields& fields) {
  ModelConfig model;
  QK_ASSIGN_OR_RETURN(const int layers,
                      ReadSize(config, fields.layers, kMaxLayers));
  QK_ASSIGN_OR_RETURN(model.hidden_size,
                      ReadSize(config, fields.hidden, kMaxWidth));
  model.embedding_size = model.hidden_size;
  QK_ASSIGN_OR_RETURN(
      model.vocab_size,
      ReadSizeOr(config, "vocab_size", kMaxVocab, fields.default_vocab));
  QK_ASSIGN_OR_RETURN(
      model.context_length,
      ReadSizeOr(config, fields.context, kMaxContext, fields.default_context));
  LayerConfig layer;
  QK_ASSIGN_OR_RETURN(layer.attention,
                      ReadHeads(config, fields, model.hidden_size));
  QK_ASSIGN_OR_RETURN(layer.mlp, ReadMlp(config, fields, model.hidden_size));
  model.layers.assign(layers, layer);
  double eps = fields.default_norm_eps;
  if (fields.norm_eps != nullptr) {
    QK_ASSIGN_OR_RETURN(eps, config.GetDoubleOr(fields.norm_eps, eps));
    if (!(eps >= 0 && eps <= 1)) {
      return config.Error(
          absl::StrCat(fields.norm_eps, ": must be in [0, 1], got ", eps));
    }
  }
  model.norm_eps = static_cast<float>(eps);
  QK_ASSIGN_OR_RETURN(
      model.tied_lm_head,
      config.GetBoolOr("tie_word_embeddings", fields.default_tied));
  return model;
}

absl::Status RefuseUnknownFields(const JsonValue& config,
                                 absl::Span<const absl::string_view> known) {
  return config.ForEachMember([&](absl::string_view key, JsonValue value) {
    if (absl::c_linear_search(known, key) ||
        absl::c_linear_search(kReadForAll, key) || IsInertField(key, value)) {
      return absl::OkStatus();
    }
    return Unimplemented(
        config, key,
        absl::StrCat("a field that is not implemented, got ", value.Describe(),
                     "; to load the model as if the field was missing, name it "
                     "in the model's `ignore`"));
  });
}

absl::Status RequireFalse(const JsonValue& config,
                          absl::Span<const absl::string_view> fields) {
  for (const absl::string_view field : fields) {
    QK_ASSIGN_OR_RETURN(const bool value, config.GetBoolOr(field, false));
    if (value) {
      return Unimplemented(config, field, "true is not implemented");
    }
  }
  return absl::OkStatus();
}

bool IsNull(const JsonValue& config, absl::string_view key) {
  bool null = false;
  const absl::Status status =
      config.ForEachMember([&](absl::string_view member, JsonValue value) {
        null |= member == key && value.is_null();
        return absl::OkStatus();
      });
  return status.ok() && null;
}

bool SameJson(const JsonValue& a, const JsonValue& b) {
  if (a.type() != b.type() || a.size() != b.size()) return false;
  // Stops at the first difference.
  const absl::Status differs = absl::UnknownError("");
  if (a.is_object()) {
    return a
        .ForEachMember([&](absl::string_view key, JsonValue value) {
          const auto other = b.Find(key);
          const bool same =
              other.has_value() ? SameJson(value, *other) : value.is_null();
          return same ? absl::OkStatus() : differs;
        })
        .ok();
  }
  if (a.is_array()) {
    std::vector<JsonValue> others;
    QK_CHECK(b.ForEachElement([&](JsonValue value) {
                others.push_back(value);
                return absl::OkStatus();
              }).ok());
    size_t next = 0;
    return a
        .ForEachElement([&](JsonValue value) {
          return SameJson(value, others[next++]) ? absl::OkStatus() : differs;
        })
        .ok();
  }
  if (a.is_number() && a.AsDouble().ok() && b.AsDouble().ok()) {
    return *a.AsDouble() == *b.AsDouble();
  }
  if (a.is_string()) return *a.AsString() == *b.AsString();
  return a.Describe() == b.Describe();
}

absl::StatusOr<double> ReadPositive(const JsonValue& config,
                                    absl::string_view key) {
  QK_ASSIGN_OR_RETURN(const double value, config.GetDouble(key));
  if (value <= 0) {
    return config.Error(absl::StrCat(key, ": must be > 0, got ", value));
  }
  return value;
}

absl::StatusOr<double> ReadPositiveOr(const JsonValue& config,
                                      absl::string_view key, double missing) {
  return config.Find(key).has_value() ? ReadPositive(config, key) : missing;
}

absl::Status Unimplemented(const JsonValue& object, absl::string_view key,
                           absl::string_view message) {
  const std::string path = object.Path();
  return absl::UnimplementedError(absl::StrCat(
      "config: ", path, path.empty() ? "" : ".", Excerpt(key), ": ", message));
}

absl::StatusOr<Activation> ReadActivation(const JsonValue& config,
                                          absl::string_view key,
                                          absl::string_view missing) {
  QK_ASSIGN_OR_RETURN(const absl::string_view name,
                      config.GetStringOr(key, missing));
  for (const NamedActivation& known : kActivations) {
    if (name == known.name) return known.activation;
  }
  return Unimplemented(
      config, key,
      absl::StrCat(config.Get(key)->Describe(),
                   " is not implemented "
                   "(implemented: silu, gelu, gelu_new, quick_gelu, relu)"));
}

absl::StatusOr<std::vector<bool>> ReadSlidingLayers(const JsonValue& config,
                                                    std::vector<bool> missing) {
  if (!config.Find("layer_types").has_value()) return missing;
  QK_ASSIGN_OR_RETURN(const JsonValue types, config.GetArray("layer_types"));
  if (types.size() != static_cast<int64_t>(missing.size())) {
    return types.Error(absl::StrCat("must have one entry per layer, ",
                                    missing.size(), ", got ", types.size()));
  }
  std::vector<bool> sliding;
  QK_RETURN_IF_ERROR(types.ForEachElement([&](JsonValue type) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const absl::string_view name, type.AsString());
    if (name != "sliding_attention" && name != "full_attention") {
      return absl::UnimplementedError(
          absl::StrCat("config: ", type.Path(), ": ", type.Describe(),
                       " is not implemented (implemented: full_attention, "
                       "sliding_attention)"));
    }
    sliding.push_back(name == "sliding_attention");
    return absl::OkStatus();
  }));
  return sliding;
}

void SetWindow(const std::vector<bool>& sliding, int64_t window,
               ModelConfig* model) {
  for (size_t i = 0; i < sliding.size(); ++i) {
    if (!sliding[i]) continue;
    model->layers[i].attention.sliding_window = static_cast<int>(window);
  }
}

}  // namespace qk
