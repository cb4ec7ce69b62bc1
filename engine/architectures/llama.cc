// The Llama family: Llama 2 and 3, SmolLM, Mistral.
#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/architecture.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/check.h"

namespace qk {
namespace {

constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 24;

// What both kinds of file say of a model of this family.
struct Hyperparameters {
  int64_t layers = 0, hidden = 0, intermediate = 0, vocab = 0, context = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double norm_eps = 0;
  bool tied = false, attention_bias = false, mlp_bias = false;
  std::optional<int> window;
  RopeConfig rope;
};

ModelConfig ToConfig(const Hyperparameters& p, absl::string_view name) {
  ModelConfig config;
  config.architecture = std::string(name);
  config.hidden_size = static_cast<int>(p.hidden);
  config.vocab_size = static_cast<int>(p.vocab);
  config.context_length = static_cast<int>(p.context);
  config.norm_eps = static_cast<float>(p.norm_eps);
  config.tied_head = p.tied;
  LayerConfig layer;
  layer.attention.num_heads = static_cast<int>(p.heads);
  layer.attention.num_kv_heads = static_cast<int>(p.kv_heads);
  layer.attention.head_dim = static_cast<int>(p.head_dim);
  layer.attention.scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.head_dim)));
  layer.attention.qkv_bias = p.attention_bias;
  layer.attention.o_bias = p.attention_bias;
  layer.attention.sliding_window = p.window;
  layer.attention.rope = p.rope;
  layer.mlp.intermediate_size = static_cast<int>(p.intermediate);
  layer.mlp.bias = p.mlp_bias;
  config.layers.assign(p.layers, layer);
  return config;
}

// Names of one family of files; `prefix` holds "{layer}" spelt by the caller.
struct Names {
  const char *attention_norm, *mlp_norm, *q, *k, *v, *o, *gate, *up, *down;
};

LayerWeightRefs LayerRefs(const Hyperparameters& p, const std::string& prefix,
                          const Names& names, bool interleaved) {
  const int64_t q_size = p.heads * p.head_dim;
  const int64_t kv_size = p.kv_heads * p.head_dim;
  const auto weight = [&](const char* name, std::vector<int64_t> shape,
                          int64_t heads = 0) {
    return WeightRef{absl::StrCat(prefix, name, ".weight"), std::move(shape),
                     interleaved ? static_cast<int>(heads) : 0};
  };
  const auto bias = [&](bool wanted, const char* name, int64_t size,
                        int64_t heads = 0) {
    if (!wanted) return WeightRef{};
    return WeightRef{absl::StrCat(prefix, name, ".bias"),
                     {size},
                     interleaved ? static_cast<int>(heads) : 0};
  };
  LayerWeightRefs refs;
  refs.attention_norm = weight(names.attention_norm, {p.hidden});
  refs.mlp_norm = weight(names.mlp_norm, {p.hidden});
  refs.q_proj = weight(names.q, {q_size, p.hidden}, p.heads);
  refs.k_proj = weight(names.k, {kv_size, p.hidden}, p.kv_heads);
  refs.v_proj = weight(names.v, {kv_size, p.hidden});
  refs.o_proj = weight(names.o, {p.hidden, q_size});
  refs.q_bias = bias(p.attention_bias, names.q, q_size, p.heads);
  refs.k_bias = bias(p.attention_bias, names.k, kv_size, p.kv_heads);
  refs.v_bias = bias(p.attention_bias, names.v, kv_size);
  refs.o_bias = bias(p.attention_bias, names.o, p.hidden);
  refs.gate_proj = weight(names.gate, {p.intermediate, p.hidden});
  refs.up_proj = weight(names.up, {p.intermediate, p.hidden});
  refs.down_proj = weight(names.down, {p.hidden, p.intermediate});
  refs.gate_bias = bias(p.mlp_bias, names.gate, p.intermediate);
  refs.up_bias = bias(p.mlp_bias, names.up, p.intermediate);
  refs.down_bias = bias(p.mlp_bias, names.down, p.hidden);
  return refs;
}

absl::Status CheckHeads(const JsonValue& config, const Hyperparameters& p) {
  if (p.heads % p.kv_heads != 0) {
    return config.Error(absl::StrCat("num_key_value_heads: ", p.kv_heads,
                                     " does not divide num_attention_heads ",
                                     p.heads));
  }
  if (p.head_dim % 2 != 0) {
    return config.Error(
        absl::StrCat("head_dim: must be even, got ", p.head_dim));
  }
  return absl::OkStatus();
}

// Fields that say how a model is run or was trained, and change no number of
// the forward pass. Any other field we do not read may change them: refused.
bool ChangesNothing(absl::string_view key) {
  constexpr absl::string_view kKeys[] = {"_name_or_path",
                                         "architectures",
                                         "attention_dropout",
                                         "bos_token_id",
                                         "dtype",
                                         "eos_token_id",
                                         "initializer_range",
                                         "is_llama_config",
                                         "model_type",
                                         "pad_token_id",
                                         "pretraining_tp",
                                         "rope_interleaved",
                                         "torch_dtype",
                                         "transformers_version",
                                         "transformers.js_config",
                                         "use_cache",
                                         "tie_word_embeddings",
                                         "unk_token_id",
                                         "id2label",
                                         "label2id",
                                         "output_attentions",
                                         "output_hidden_states",
                                         "return_dict",
                                         "chunk_size_feed_forward",
                                         "is_encoder_decoder",
                                         "problem_type",
                                         "num_return_sequences",
                                         "task_specific_params"};
  return absl::c_linear_search(kKeys, key);
}

// The fields that Parse reads.
bool IsRead(absl::string_view key) {
  constexpr absl::string_view kKeys[] = {
      "attention_bias",    "head_dim",
      "hidden_act",        "hidden_size",
      "intermediate_size", "max_position_embeddings",
      "mlp_bias",          "num_attention_heads",
      "num_hidden_layers", "num_key_value_heads",
      "rms_norm_eps",      "rope_parameters",
      "rope_scaling",      "rope_theta",
      "sliding_window",    "vocab_size"};
  return absl::c_linear_search(kKeys, key);
}

absl::Status RefuseUnknownFields(const JsonValue& config) {
  return config.ForEachMember([&](absl::string_view key, JsonValue value) {
    if (value.is_null() || IsRead(key) || ChangesNothing(key)) {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        absl::StrCat("config: ", key, ": a field that is not implemented, got ",
                     value.Describe()));
  });
}

absl::Status ReadRope(const JsonValue& config, Hyperparameters* p) {
  // transformers 5 puts theta and scaling into one object.
  const std::optional<JsonValue> parameters = config.Find("rope_parameters");
  const JsonValue& theta_home = parameters.has_value() ? *parameters : config;
  QK_ASSIGN_OR_RETURN(p->rope.theta,
                      theta_home.GetDoubleOr("rope_theta", 10000.0));
  if (p->rope.theta <= 0) {
    return config.Error(
        absl::StrCat("rope_theta: must be > 0, got ", p->rope.theta));
  }
  p->rope.rotary_dims = static_cast<int>(p->head_dim);
  SetBaseFrequencies(&p->rope);
  if (parameters.has_value()) {
    QK_RETURN_IF_ERROR(ApplyRopeScaling(*parameters, &p->rope));
  }
  const std::optional<JsonValue> scaling = config.Find("rope_scaling");
  if (scaling.has_value()) {
    QK_RETURN_IF_ERROR(ApplyRopeScaling(*scaling, &p->rope));
  }
  return absl::OkStatus();
}

absl::StatusOr<Hyperparameters> Parse(const JsonValue& config) {
  Hyperparameters p;
  QK_ASSIGN_OR_RETURN(
      p.layers, config.GetInt64InRange("num_hidden_layers", 1, kMaxLayers));
  QK_ASSIGN_OR_RETURN(p.hidden,
                      config.GetInt64InRange("hidden_size", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(p.intermediate, config.GetInt64InRange(
                                          "intermediate_size", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(p.vocab,
                      config.GetInt64InRange("vocab_size", 1, kMaxVocab));
  QK_ASSIGN_OR_RETURN(p.context,
                      config.GetInt64InRangeOr("max_position_embeddings", 1,
                                               kMaxContext, 2048));
  QK_ASSIGN_OR_RETURN(
      p.heads, config.GetInt64InRange("num_attention_heads", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(
      p.kv_heads,
      config.GetInt64InRangeOr("num_key_value_heads", 1, kMaxWidth, p.heads));
  if (!config.Find("head_dim").has_value() && p.hidden % p.heads != 0) {
    return config.Error(absl::StrCat("hidden_size: ", p.hidden,
                                     " is not a multiple of "
                                     "num_attention_heads ",
                                     p.heads));
  }
  QK_ASSIGN_OR_RETURN(p.head_dim, config.GetInt64InRangeOr("head_dim", 1, 1024,
                                                           p.hidden / p.heads));
  QK_RETURN_IF_ERROR(CheckHeads(config, p));
  QK_ASSIGN_OR_RETURN(p.norm_eps, config.GetDoubleOr("rms_norm_eps", 1e-6));
  if (p.norm_eps < 0) {
    return config.Error(
        absl::StrCat("rms_norm_eps: must be >= 0, got ", p.norm_eps));
  }
  QK_ASSIGN_OR_RETURN(p.attention_bias,
                      config.GetBoolOr("attention_bias", false));
  QK_ASSIGN_OR_RETURN(p.mlp_bias, config.GetBoolOr("mlp_bias", false));
  QK_ASSIGN_OR_RETURN(const absl::string_view activation,
                      config.GetStringOr("hidden_act", "silu"));
  if (activation != "silu") {
    return absl::UnimplementedError(
        absl::StrCat("config: hidden_act: '", activation,
                     "' is not implemented (implemented: silu)"));
  }
  return p;
}

}  // namespace

absl::StatusOr<Architecture> LlamaFromConfig(const JsonValue& config,
                                             absl::string_view model_type) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config));
  QK_ASSIGN_OR_RETURN(Hyperparameters p, Parse(config));
  QK_ASSIGN_OR_RETURN(p.tied, config.GetBoolOr("tie_word_embeddings", false));
  // Only Mistral's code reads the window; null there means none.
  if (config.Find("sliding_window").has_value()) {
    if (model_type != "mistral") {
      return absl::UnimplementedError(
          "config: sliding_window: not a field of this architecture");
    }
    QK_ASSIGN_OR_RETURN(
        const int64_t window,
        config.GetInt64InRange("sliding_window", 1, kMaxContext));
    p.window = static_cast<int>(window);
  }
  QK_RETURN_IF_ERROR(ReadRope(config, &p));

  Architecture architecture;
  architecture.config = ToConfig(p, model_type);
  constexpr Names kNames = {"input_layernorm",  "post_attention_layernorm",
                            "self_attn.q_proj", "self_attn.k_proj",
                            "self_attn.v_proj", "self_attn.o_proj",
                            "mlp.gate_proj",    "mlp.up_proj",
                            "mlp.down_proj"};
  for (int64_t i = 0; i < p.layers; ++i) {
    architecture.layers.push_back(
        LayerRefs(p, absl::StrCat("model.layers.", i, "."), kNames, false));
  }
  architecture.embedding = {"model.embed_tokens.weight", {p.vocab, p.hidden}};
  architecture.final_norm = {"model.norm.weight", {p.hidden}};
  architecture.lm_head = {
      p.tied ? architecture.embedding.name : "lm_head.weight",
      {p.vocab, p.hidden}};
  return architecture;
}

namespace {

// The files of Llama 3.1 and later hold their scaling as a tensor; "linear" is
// in the metadata.
absl::Status ReadGgufRope(const GgufFile& file, const std::string& prefix,
                          Hyperparameters* p) {
  QK_ASSIGN_OR_RETURN(p->rope.theta,
                      file.GetDoubleOr(prefix + "rope.freq_base", 10000.0));
  if (!(p->rope.theta > 0)) {
    return file.Error(prefix + "rope.freq_base", "must be > 0");
  }
  QK_ASSIGN_OR_RETURN(const int64_t rotary,
                      file.GetInt64InRangeOr(prefix + "rope.dimension_count", 2,
                                             1024, p->head_dim));
  if (rotary != p->head_dim) {
    return absl::UnimplementedError(
        absl::StrCat(prefix, "rope.dimension_count: ", rotary,
                     " of a head_dim of ", p->head_dim, " is not implemented"));
  }
  p->rope.rotary_dims = static_cast<int>(rotary);
  SetBaseFrequencies(&p->rope);
  QK_ASSIGN_OR_RETURN(const absl::string_view scaling,
                      file.GetStringOr(prefix + "rope.scaling.type", "none"));
  if (scaling == "none") return absl::OkStatus();
  if (scaling != "linear") {
    return absl::UnimplementedError(
        absl::StrCat(prefix, "rope.scaling.type: '", scaling,
                     "' is not implemented (implemented: none, linear)"));
  }
  QK_ASSIGN_OR_RETURN(const double factor,
                      file.GetDouble(prefix + "rope.scaling.factor"));
  if (!(factor > 0)) {
    return file.Error(prefix + "rope.scaling.factor", "must be > 0");
  }
  p->rope.scaling = "linear";
  for (double& f : p->rope.frequencies) f = static_cast<float>(f / factor);
  return absl::OkStatus();
}

absl::StatusOr<Hyperparameters> ParseGgufNumbers(const GgufFile& file,
                                                 const std::string& prefix) {
  Hyperparameters p;
  QK_ASSIGN_OR_RETURN(
      p.layers, file.GetInt64InRange(prefix + "block_count", 1, kMaxLayers));
  QK_ASSIGN_OR_RETURN(p.hidden, file.GetInt64InRange(
                                    prefix + "embedding_length", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(
      p.intermediate,
      file.GetInt64InRange(prefix + "feed_forward_length", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(p.context, file.GetInt64InRange(prefix + "context_length",
                                                      1, kMaxContext));
  QK_ASSIGN_OR_RETURN(
      p.heads,
      file.GetInt64InRange(prefix + "attention.head_count", 1, kMaxWidth));
  QK_ASSIGN_OR_RETURN(
      p.kv_heads, file.GetInt64InRangeOr(prefix + "attention.head_count_kv", 1,
                                         kMaxWidth, p.heads));
  if (p.heads % p.kv_heads != 0) {
    return file.Error(
        prefix + "attention.head_count_kv",
        absl::StrCat(p.kv_heads, " does not divide head_count ", p.heads));
  }
  if (!file.Has(prefix + "attention.key_length") && p.hidden % p.heads != 0) {
    return file.Error(
        prefix + "embedding_length",
        absl::StrCat(p.hidden, " is not a multiple of head_count ", p.heads));
  }
  QK_ASSIGN_OR_RETURN(p.head_dim,
                      file.GetInt64InRangeOr(prefix + "attention.key_length", 1,
                                             1024, p.hidden / p.heads));
  QK_ASSIGN_OR_RETURN(const int64_t value_length,
                      file.GetInt64InRangeOr(prefix + "attention.value_length",
                                             1, 1024, p.head_dim));
  if (p.head_dim % 2 != 0 || value_length != p.head_dim) {
    return file.Error(prefix + "attention.key_length",
                      "must be even and equal to value_length");
  }
  QK_ASSIGN_OR_RETURN(
      p.norm_eps, file.GetDouble(prefix + "attention.layer_norm_rms_epsilon"));
  if (!(p.norm_eps >= 0)) {
    return file.Error(prefix + "attention.layer_norm_rms_epsilon",
                      "must be >= 0");
  }
  return p;
}

}  // namespace

absl::StatusOr<Architecture> LlamaFromGguf(const GgufFile& file) {
  const std::string prefix = "llama.";
  QK_ASSIGN_OR_RETURN(Hyperparameters p, ParseGgufNumbers(file, prefix));
  QK_ASSIGN_OR_RETURN(const int64_t experts,
                      file.GetInt64Or(prefix + "expert_count", 0));
  if (experts != 0) {
    return absl::UnimplementedError(
        absl::StrCat("llama.expert_count: ", experts, " is not implemented"));
  }
  const TensorInfo* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return absl::InvalidArgumentError("missing 'token_embd.weight'");
  }
  p.vocab = embedding->shape[0];
  p.tied = file.Find("output.weight") == nullptr;
  p.attention_bias = file.Find("blk.0.attn_q.bias") != nullptr;
  QK_RETURN_IF_ERROR(ReadGgufRope(file, prefix, &p));

  Architecture architecture;
  architecture.config = ToConfig(p, "llama");
  constexpr Names kNames = {"attn_norm", "ffn_norm", "attn_q",
                            "attn_k",    "attn_v",   "attn_output",
                            "ffn_gate",  "ffn_up",   "ffn_down"};
  for (int64_t i = 0; i < p.layers; ++i) {
    architecture.layers.push_back(
        LayerRefs(p, absl::StrCat("blk.", i, "."), kNames, true));
  }
  architecture.embedding = {"token_embd.weight", {p.vocab, p.hidden}};
  architecture.final_norm = {"output_norm.weight", {p.hidden}};
  architecture.lm_head = {p.tied ? "token_embd.weight" : "output.weight",
                          {p.vocab, p.hidden}};
  if (file.Find("rope_freqs.weight") != nullptr) {
    architecture.rope_factors = {"rope_freqs.weight", {p.head_dim / 2}};
  }
  return architecture;
}

}  // namespace qk
