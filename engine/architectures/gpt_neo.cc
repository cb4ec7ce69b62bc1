// GPT-Neo: every second layer has a window, and attention is not scaled.
#include "absl/strings/str_cat.h"
#include "engine/architectures/families.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {
    "activation_function", "attention_layers", "attention_types", "hidden_size",
    "intermediate_size", "layer_norm_epsilon", "max_position_embeddings",
    "num_heads", "num_layers", "window_size",
    // Dropouts act in training only.
    "embed_dropout", "resid_dropout"};

// Appends, for each kind, whether it is "local".
absl::Status ReadKinds(const JsonValue& kinds, std::vector<bool>* local) {
  return kinds.ForEachElement([&](JsonValue kind) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const absl::string_view name, kind.AsString());
    if (name != "local" && name != "global") {
      return kind.Error(
          absl::StrCat("must be global or local, got ", kind.Describe()));
    }
    local->push_back(name == "local");
    return absl::OkStatus();
  });
}

absl::StatusOr<JsonValue> Element(const JsonValue& array, int64_t wanted) {
  JsonValue found;
  int64_t i = 0;
  QK_RETURN_IF_ERROR(array.ForEachElement([&](JsonValue element) {
    if (i++ == wanted) found = element;
    return absl::OkStatus();
  }));
  return found;
}

// [[["global", "local"], 12]] means these two 12 times.
absl::StatusOr<std::vector<bool>> ReadTypes(const JsonValue& types) {
  std::vector<bool> local;
  QK_RETURN_IF_ERROR(types.ForEachElement([&](JsonValue run) -> absl::Status {
    if (!run.is_array() || run.size() != 2) {
      return run.Error("must be [kinds, how often]");
    }
    QK_ASSIGN_OR_RETURN(const JsonValue kinds, Element(run, 0));
    QK_ASSIGN_OR_RETURN(const JsonValue count, Element(run, 1));
    QK_ASSIGN_OR_RETURN(const int64_t times, count.AsInt64());
    if (times < 0 || times > kMaxLayers || kinds.size() > kMaxLayers ||
        times * kinds.size() + static_cast<int64_t>(local.size()) >
            kMaxLayers) {
      return count.Error(
          absl::StrCat("must be in [0, ", kMaxLayers, "], got ", times));
    }
    for (int64_t i = 0; i < times; ++i) {
      QK_RETURN_IF_ERROR(ReadKinds(kinds, &local));
    }
    return absl::OkStatus();
  }));
  return local;
}

// Reads "attention_types" as transformers does, with [[["global", "local"],
// 12]] as the default; "attention_layers" must agree.
absl::StatusOr<std::vector<bool>> ReadLocalLayers(const JsonValue& config,
                                                  int layers) {
  std::vector<bool> local(24);
  for (int i = 1; i < 24; i += 2) local[i] = true;
  if (config.Find("attention_types").has_value()) {
    QK_ASSIGN_OR_RETURN(const JsonValue types,
                        config.GetArray("attention_types"));
    QK_ASSIGN_OR_RETURN(local, ReadTypes(types));
  }
  if (config.Find("attention_layers").has_value()) {
    QK_ASSIGN_OR_RETURN(const JsonValue kinds,
                        config.GetArray("attention_layers"));
    std::vector<bool> listed;
    QK_RETURN_IF_ERROR(ReadKinds(kinds, &listed));
    if (listed != local) {
      return kinds.Error("says something else than attention_types");
    }
  }
  if (static_cast<int>(local.size()) == layers) return local;
  return config.Error(absl::StrCat("attention_types: must be of ", layers,
                                   " layers, got ", local.size()));
}

}  // namespace

absl::StatusOr<Architecture> GptNeoFromConfig(const JsonValue& config,
                                              absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.layers = "num_layers";
  fields.default_intermediate_ratio = 4;
  fields.heads = "num_heads";
  fields.kv_heads = nullptr;
  fields.head_dim = nullptr;
  fields.norm_eps = "layer_norm_epsilon";
  fields.default_norm_eps = 1e-5;
  fields.activation = "activation_function";
  fields.default_activation = "gelu_new";
  fields.default_tied = true;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  model.norm = NormKind::kLayer;
  model.position_rows = model.context_length;
  for (LayerConfig& layer : model.layers) {
    layer.attention.scale = 1.0f;
    layer.attention.o_bias = true;
    layer.mlp.gated = false;
    layer.mlp.bias = true;
  }
  QK_ASSIGN_OR_RETURN(
      const int64_t window,
      config.GetInt64InRangeOr("window_size", 1, kMaxContext, 256));
  QK_ASSIGN_OR_RETURN(const std::vector<bool> local,
                      ReadLocalLayers(config, model.num_layers()));
  SetWindow(local, window, &model);
  WeightNames names = Gpt2Names();
  names.q = "attn.attention.q_proj";
  names.k = "attn.attention.k_proj";
  names.v = "attn.attention.v_proj";
  names.o = "attn.attention.out_proj";
  Architecture a = MapWeights(std::move(model), names);
  a.ignored = {".attn.attention.bias"};
  return a;
}

}  // namespace qk
