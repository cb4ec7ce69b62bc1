#include "tests/engine/architectures/config_mutation_tables.h"

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace qk::testing {
namespace {

constexpr char kIds[] = "says which token ends, starts or pads a text";
constexpr char kTraining[] = "drops or initialises in training only";
constexpr char kRecord[] = "says who wrote the file, with what";
constexpr char kRunning[] = "says how the model is run, not what it computes";
constexpr char kOtherHead[] = "of a head that is not the language model's";
constexpr char kStored[] = "each tensor of the file says its own type";
constexpr char kPictures[] = "of pictures, and the prompts are texts";
constexpr char kNoPictures[] = "of pictures, which this model does not take";
constexpr char kMarks[] = "marks pictures for the reader of tokens";
constexpr char kDefault[] = "transformers' default";
constexpr char kNoWindow[] = "use_sliding_window is false";
constexpr char kNoLayer[] = "no layer has a window even then";
constexpr char kLongWindow[] = "the prompts are within the window of 256";
constexpr char kSameLayers[] = "the same layers have attention, of the four";
constexpr char kOtherRope[] = "read by llama3, yarn and longrope only";
constexpr char kOneExpert[] = "one expert is an MLP";

constexpr Excuse kExcuses[] = {
    // These change nothing in any model.
    {"*", "architectures", "*", "AutoModelForCausalLM goes by model_type"},
    {"*", "attention_dropout", "*", kTraining},
    {"*", "bos_token_id", "*", kIds},
    {"*", "cache_implementation", "*", kRunning},
    {"*", "dtype", "*", kStored},
    {"*", "eos_token_id", "*", kIds},
    {"*", "gradient_checkpointing", "*", kTraining},
    {"*", "init_std", "*", kTraining},
    {"*", "initializer_range", "*", kTraining},
    {"*", "pad_token_id", "*", kIds},
    {"*", "prefix", "*", "a text that pipelines put before a prompt"},
    {"*", "task_specific_params", "*", "generation's, in a pipeline"},
    {"*", "torch_dtype", "*", kStored},
    {"*", "transformers_version", "*", kRecord},
    {"*", "use_cache", "*", kRunning},

    // These change nothing in a family.
    {"gemma3", "boi_token_index", "*", kMarks},
    {"gemma3", "eoi_token_index", "*", kMarks},
    {"gemma3", "image_token_index", "*", kNoPictures},
    {"gemma3", "mm_tokens_per_image", "*", kNoPictures},
    {"gemma3", "vision_config", "*", kNoPictures},
    {"gpt2", "attn_pdrop", "*", kTraining},
    {"gpt2", "embd_pdrop", "*", kTraining},
    {"gpt2", "n_ctx", "*", "an older name of n_positions, which is read"},
    {"gpt2", "reorder_and_upcast_attn", "*", "changes the order of sums only"},
    {"gpt2", "resid_pdrop", "*", kTraining},
    {"gpt2", "summary_activation", "*", kOtherHead},
    {"gpt2", "summary_first_dropout", "*", kOtherHead},
    {"gpt2", "summary_proj_to_labels", "*", kOtherHead},
    {"gpt2", "summary_type", "*", kOtherHead},
    {"gpt2", "summary_use_proj", "*", kOtherHead},
    {"gpt_neo", "embed_dropout", "*", kTraining},
    {"gpt_neo", "resid_dropout", "*", kTraining},
    {"gpt_neo", "summary_activation", "*", kOtherHead},
    {"gpt_neo", "summary_first_dropout", "*", kOtherHead},
    {"gpt_neo", "summary_proj_to_labels", "*", kOtherHead},
    {"gpt_neo", "summary_type", "*", kOtherHead},
    {"gpt_neo", "summary_use_proj", "*", kOtherHead},
    {"jamba", "num_logits_to_keep", "*", kRunning},
    {"jamba", "output_router_logits", "*", kTraining},
    {"jamba", "router_aux_loss_coef", "*", kTraining},
    {"jamba", "use_mamba_kernels", "*", kRunning},
    {"llama", "pretraining_tp", "*", "cuts the same products into slices"},
    {"opt", "activation_dropout", "*", kTraining},
    {"opt", "dropout", "*", kTraining},
    {"opt", "layerdrop", "*", kTraining},
    {"phi3", "embd_pdrop", "*", kTraining},
    {"phi3", "resid_pdrop", "*", kTraining},
    {"tiny_qwen2_vl", "image_token_id", "*", kPictures},
    {"qwen2_vl", "video_token_id", "*", "of videos, which are not taken"},
    {"tiny_qwen2_vl", "vision_config", "*", kPictures},
    {"qwen2_vl", "vision_end_token_id", "*", kMarks},
    {"qwen2_vl", "vision_start_token_id", "*", kMarks},
    {"qwen2_vl", "vision_token_id", "*", kMarks},

    // These record how packed weights were made.
    {"tiny_gptq_*", "quantization_config.damp_percent", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.meta", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.model_file_base_name", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.model_name_or_path", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.static_groups", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.true_sequential", "*", kRecord},
    {"tiny_gptq_*", "quantization_config.desc_act", "*",
     "each matrix's g_idx says which group an input belongs to"},
    {"tiny_gptq_*", "quantization_config.sym", "*",
     "each matrix's qzeros says where its zeros are"},
    {"tiny_gptq_*", "quantization_config.checkpoint_format", "missing",
     kDefault, "\"gptq\""},
    {"tiny_gptq_*", "quantization_config.group_size", "missing", kDefault,
     "128"},
    {"tiny_gptq_*", "quantization_config.lm_head", "missing", kDefault,
     "false"},
    {"tiny_gptq_*", "quantization_config.pack_dtype", "missing", kDefault,
     "\"int32\""},
    {"tiny_gptq_g64_sym", "quantization_config.group_size", "= -1",
     "64 inputs are one group of 64"},
    {"tiny_awq_g64", "quantization_config.group_size", "= -1",
     "64 inputs are one group of 64"},
    {"tiny_awq_*", "quantization_config.group_size", "missing", kDefault,
     "128"},
    {"tiny_awq_*", "quantization_config.modules_to_not_convert", "missing",
     kDefault, "null"},
    {"tiny_awq_*", "quantization_config.version", "missing", kDefault,
     "\"gemm\""},
    {"tiny_awq_*", "quantization_config.zero_point", "missing", kDefault,
     "true"},
    {"tiny_gptq_channel_sym", "attention_bias", "flipped",
     "the biases of zeros that GPTQ's writers add are then read"},
    {"tiny_gptq_channel_sym", "mlp_bias", "flipped",
     "the biases of zeros that GPTQ's writers add are then read"},

    // These change nothing, given the other fields of the file.
    {"gemma2", "hidden_act", "missing", "only hidden_activation is read"},
    {"llama", "model_type", "= \"mistral\"",
     "Mistral's default window of 4096 keys, which the prompts are within"},
    {"opt", "word_embed_proj_dim", "missing", "as wide as hidden_size", "32"},
    {"phi3", "original_max_position_embeddings", "*", "read by LongRoPE only",
     "256"},
    {"tiny_awq_qwen2", "max_window_layers", "*", kNoWindow},
    {"tiny_awq_qwen2", "sliding_window", "*", kNoWindow},
    {"tiny_awq_qwen2", "use_sliding_window", "flipped", kNoLayer},
    {"tiny_qwen2", "max_window_layers", "*", kNoWindow},
    {"tiny_qwen2", "sliding_window", "*", kNoWindow},
    {"tiny_qwen2", "use_sliding_window", "flipped", kNoLayer},
    {"tiny_qwen3", "max_window_layers", "*", kNoWindow},
    {"tiny_qwen3", "sliding_window", "*", kNoWindow},
    {"tiny_qwen3", "use_sliding_window", "flipped", kNoLayer},
    {"qwen2_vl", "max_window_layers", "*", kNoWindow},
    {"qwen2_vl", "sliding_window", "*", kNoWindow},
    {"qwen2_vl", "use_sliding_window", "flipped", kNoLayer},
    {"qwen2_vl", "rope_scaling.type", "= \"default\"",
     "transformers makes default of mrope"},
    {"qwen2_vl", "rope_scaling.type", "missing",
     "transformers makes default of mrope"},
    {"tiny_jamba", "attn_layer_period", "+ 1", kSameLayers},
    {"tiny_jamba", "attn_layer_period", "x 2", kSameLayers},
    {"tiny_jamba", "attn_layer_period", "missing", kSameLayers},
    {"tiny_jamba_dense", "expert_layer_offset", "= 0", kOneExpert},
    {"tiny_jamba_dense", "expert_layer_period", "*", kOneExpert},
    {"tiny_jamba_dense", "num_experts_per_tok", "missing", kOneExpert},
    {"tiny_opt_post_norm", "_remove_final_layer_norm", "flipped",
     "there is a final norm only with do_layer_norm_before"},
    {"tiny_phi3_longrope", "rope_scaling.type", "= \"yarn\"",
     "what LongRoPE was called at first"},
    {"tiny_phi3_partial", "rope_scaling.type", "= \"yarn\"",
     "what LongRoPE was called at first"},
    {"tiny_phi3_longrope", "sliding_window", "+ 1", kLongWindow},
    {"tiny_phi3_longrope", "sliding_window", "x 2", kLongWindow},
    {"tiny_phi3_longrope", "sliding_window", "missing", kLongWindow},
    {"tiny_phi3_partial", "sliding_window", "+ 1", kLongWindow},
    {"tiny_phi3_partial", "sliding_window", "x 2", kLongWindow},
    {"tiny_phi3_partial", "sliding_window", "missing", kLongWindow},
    {"tiny_llama_yarn", "rope_scaling.factor", "= null",
     "transformers then divides the contexts", "4.0"},

    // These are the defaults of transformers' configurations.
    {"llama", "attention_bias", "missing", kDefault, "false"},
    {"llama", "hidden_act", "missing", kDefault, "\"silu\""},
    {"llama", "mlp_bias", "missing", kDefault, "false"},
    {"llama", "rope_scaling", "missing", kDefault, "null"},
    {"llama", "rope_theta", "missing", kDefault, "10000.0"},
    {"llama", "tie_word_embeddings", "missing", kDefault, "false"},
    {"llama", "rope_parameters", "missing", kDefault,
     "{\"rope_theta\": 10000.0, \"rope_type\": \"default\"}"},
    {"llama", "rope_parameters.rope_theta", "missing", kDefault, "10000.0"},
    {"llama", "rope_parameters.rope_type", "missing", kDefault, "\"default\""},
    {"mistral", "hidden_act", "missing", kDefault, "\"silu\""},
    {"mistral", "rope_theta", "missing", kDefault, "10000.0"},
    {"mistral", "tie_word_embeddings", "missing", kDefault, "false"},
    {"qwen2", "hidden_act", "missing", kDefault, "\"silu\""},
    {"qwen2", "rms_norm_eps", "missing", kDefault, "9.9999999999999995e-07"},
    {"qwen2", "tie_word_embeddings", "missing", kDefault, "false"},
    {"qwen2", "use_mrope", "missing", kDefault, "false"},
    {"qwen2", "use_sliding_window", "missing", kDefault, "false"},
    {"qwen3", "attention_bias", "missing", kDefault, "false"},
    {"qwen3", "hidden_act", "missing", kDefault, "\"silu\""},
    {"qwen3", "rms_norm_eps", "missing", kDefault, "9.9999999999999995e-07"},
    {"qwen3", "rope_scaling", "missing", kDefault, "null"},
    {"qwen3", "use_sliding_window", "missing", kDefault, "false"},
    {"qwen2_vl", "hidden_act", "missing", kDefault, "\"silu\""},
    {"qwen2_vl", "use_sliding_window", "missing", kDefault, "false"},
    {"gemma2", "attention_bias", "missing", kDefault, "false"},
    {"gemma2", "hidden_activation", "missing", kDefault,
     "\"gelu_pytorch_tanh\""},
    {"gemma2", "rms_norm_eps", "missing", kDefault, "9.9999999999999995e-07"},
    {"gemma2", "rope_theta", "missing", kDefault, "10000.0"},
    {"gemma3_text", "attention_bias", "missing", kDefault, "false"},
    {"gemma3_text", "attn_logit_softcapping", "missing", kDefault, "null"},
    {"gemma3_text", "final_logit_softcapping", "missing", kDefault, "null"},
    {"gemma3_text", "hidden_activation", "missing", kDefault,
     "\"gelu_pytorch_tanh\""},
    {"gemma3_text", "rms_norm_eps", "missing", kDefault,
     "9.9999999999999995e-07"},
    {"gemma3_text", "rope_parameters.full_attention.rope_type", "missing",
     kDefault, "\"default\""},
    {"gemma3_text", "rope_parameters.sliding_attention.rope_type", "missing",
     kDefault, "\"default\""},
    {"gemma3_text", "tie_word_embeddings", "missing", kDefault, "true"},
    {"gemma3", "text_config.model_type", "missing", kDefault,
     "\"gemma3_text\""},
    {"phi3", "attention_bias", "missing", kDefault, "false"},
    {"phi3", "hidden_act", "missing", kDefault, "\"silu\""},
    {"phi3", "rms_norm_eps", "missing", kDefault, "1.0000000000000001e-05"},
    {"phi3", "rope_scaling", "missing", kDefault, "null"},
    {"phi3", "rope_theta", "missing", kDefault, "10000.0"},
    {"phi3", "tie_word_embeddings", "missing", kDefault, "false"},
    {"gpt2", "activation_function", "missing", kDefault, "\"gelu_new\""},
    {"gpt2", "layer_norm_epsilon", "missing", kDefault,
     "1.0000000000000001e-05"},
    {"gpt_neo", "activation_function", "missing", kDefault, "\"gelu_new\""},
    {"gpt_neo", "attention_layers", "missing", "made from attention_types",
     "[\"global\", \"local\"]"},
    {"gpt_neo", "intermediate_size", "missing", kDefault, "null"},
    {"gpt_neo", "layer_norm_epsilon", "missing", kDefault,
     "1.0000000000000001e-05"},
    {"gpt_neox", "hidden_act", "missing", kDefault, "\"gelu\""},
    {"gpt_neox", "layer_norm_eps", "missing", kDefault,
     "1.0000000000000001e-05"},
    {"gpt_neox", "rotary_emb_base", "missing", kDefault, "10000"},
    {"gpt_neox", "rotary_pct", "missing", kDefault, "0.25"},
    {"gpt_neox", "tie_word_embeddings", "missing", kDefault, "false"},
    {"gpt_neox", "use_parallel_residual", "missing", kDefault, "true"},
    {"opt", "_remove_final_layer_norm", "missing", kDefault, "false"},
    {"opt", "activation_function", "missing", kDefault, "\"relu\""},
    {"opt", "do_layer_norm_before", "missing", kDefault, "true"},
    {"jamba", "expert_layer_offset", "missing", kDefault, "1"},
    {"jamba", "expert_layer_period", "missing", kDefault, "2"},
    {"jamba", "hidden_act", "missing", kDefault, "\"silu\""},
    {"jamba", "mamba_conv_bias", "missing", kDefault, "true"},
    {"jamba", "mamba_d_conv", "missing", kDefault, "4"},
    {"jamba", "mamba_dt_rank", "missing", kDefault, "\"auto\""},
    {"jamba", "mamba_expand", "missing", kDefault, "2"},
    {"jamba", "mamba_proj_bias", "missing", kDefault, "false"},
    {"jamba", "num_experts_per_tok", "missing", kDefault, "2"},
    {"jamba", "rms_norm_eps", "missing", kDefault, "9.9999999999999995e-07"},
    {"jamba", "sliding_window", "missing", kDefault, "null"},
    {"jamba", "tie_word_embeddings", "missing", kDefault, "false"},
    {"llama", "head_dim", "missing", "hidden_size / num_attention_heads"},
    {"jamba", "num_key_value_heads", "= null", "as many as query heads", "3"},
    {"tiny_qwen2_vl_image", "vision_config.in_chans", "missing", kDefault, "3"},
    {"tiny_qwen2_vl_image", "vision_config.mlp_ratio", "missing", kDefault,
     "4"},
    {"tiny_qwen2_vl_image", "vision_config.spatial_merge_size", "missing",
     kDefault, "2"},
    {"tiny_qwen2_vl_image", "vision_config.spatial_patch_size", "missing",
     "an older name of patch_size, which is read", "4"},
    {"tiny_qwen2_vl_image", "vision_config.temporal_patch_size", "missing",
     kDefault, "2"},

    // These are added, and state what holds without them too.
    {"gpt_neox", "attention_bias", "added true", kDefault},
    {"qwen2", "attention_bias", "added true", "there always are biases"},
    {"qwen2_vl", "attention_bias", "added true", "there always are biases"},
    {"qwen2_vl", "use_mrope", "added true", "read by vLLM only"},
    {"gemma2", "tie_word_embeddings", "added true", kDefault},
    {"gemma3_text", "tie_word_embeddings", "added true", kDefault},
    {"gemma3", "tie_word_embeddings", "added true", kDefault},
    {"gemma3", "text_config.tie_word_embeddings", "added true", kDefault},
    {"gpt2", "tie_word_embeddings", "added true", kDefault},
    {"gpt_neo", "tie_word_embeddings", "added true", kDefault},
    {"opt", "tie_word_embeddings", "added true", kDefault},
    {"tiny_gemma3_layer_types", "_sliding_window_pattern", "added 1",
     "layer_types says it, and goes first"},
    {"tiny_gemma3_layer_types", "sliding_window_pattern", "added 1",
     "layer_types says it, and goes first"},
    {"mistral", "original_max_position_embeddings", "added 16", kOtherRope},
    {"qwen2", "original_max_position_embeddings", "added 16", kOtherRope},
    {"qwen3", "original_max_position_embeddings", "added 16", kOtherRope},
    {"qwen2_vl", "original_max_position_embeddings", "added 16", kOtherRope},
    {"tiny_llama_dynamic", "original_max_position_embeddings", "added 16",
     kOtherRope},
    {"tiny_llama_gqa", "original_max_position_embeddings", "added 16",
     kOtherRope},
    {"tiny_llama_headdim", "original_max_position_embeddings", "added 16",
     kOtherRope},
    {"tiny_llama_linear", "original_max_position_embeddings", "added 16",
     kOtherRope},
    {"tiny_llama_tied", "original_max_position_embeddings", "added 16",
     kOtherRope},
    {"tiny_awq_*", "original_max_position_embeddings", "added 16", kOtherRope},
    {"tiny_gptq_*", "original_max_position_embeddings", "added 16", kOtherRope},
};

bool Covers(absl::string_view models, const std::string& golden,
            const std::string& model_type) {
  if (absl::ConsumeSuffix(&models, "*")) {
    return absl::StartsWith(golden, models);
  }
  return models == golden || models == model_type;
}

bool IsInside(absl::string_view outer, absl::string_view path) {
  if (!absl::ConsumePrefix(&path, outer)) return false;
  return path.empty() || path[0] == '.' || path[0] == '[';
}

}  // namespace

absl::Span<const Excuse> AllExcuses() { return kExcuses; }

const Excuse* FindExcuse(const std::string& golden,
                         const std::string& model_type,
                         const Variant& variant) {
  for (const Excuse& excuse : kExcuses) {
    const bool change =
        excuse.change == "*" || excuse.change == variant.change ||
        (excuse.change == "missing" &&
         (variant.change == "removed" || variant.change == "= null"));
    if (change && Covers(excuse.models, golden, model_type) &&
        IsInside(excuse.path, variant.path) &&
        (excuse.before.empty() || excuse.before == variant.before)) {
      return &excuse;
    }
  }
  return nullptr;
}

}  // namespace qk::testing
