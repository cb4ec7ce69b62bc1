#include "engine/architectures/inert_fields.h"

#include <string>

#include "absl/algorithm/container.h"

namespace qk {
namespace {

// Inert at any value: how a model is stored, trained, sampled, or used for
// another task.
constexpr absl::string_view kAnyValue[] = {"_attn_implementation",
                                           "_attn_implementation_autoset",
                                           "_attn_implementation_internal",
                                           "_auto_class",
                                           "_commit_hash",
                                           "_flash_attn_2_enabled",
                                           "_name_or_path",
                                           "_model_name_or_path",
                                           "_num_labels",
                                           "architectures",
                                           "attention_dropout",
                                           "attention_probs_dropout_prob",
                                           "attn_implementation",
                                           "attn_pdrop",
                                           "bad_words_ids",
                                           "begin_suppress_tokens",
                                           "bos_token_id",
                                           "cache_config",
                                           "cache_implementation",
                                           "chunk_size_feed_forward",
                                           "classifier_activation",
                                           "classifier_bias",
                                           "classifier_dropout",
                                           "cls_token_id",
                                           "constraints",
                                           "decoder_start_token_id",
                                           "diversity_penalty",
                                           "do_sample",
                                           "dtype",
                                           "early_stopping",
                                           "embd_pdrop",
                                           "encoder_no_repeat_ngram_size",
                                           "eos_token_id",
                                           "epsilon_cutoff",
                                           "eta_cutoff",
                                           "exponential_decay_length_penalty",
                                           "finetuning_task",
                                           "force_words_ids",
                                           "forced_bos_token_id",
                                           "forced_eos_token_id",
                                           "gradient_checkpointing",
                                           "guidance_scale",
                                           "hidden_dropout",
                                           "hidden_dropout_prob",
                                           "id2label",
                                           "init_std",
                                           "initializer_range",
                                           "is_decoder",
                                           "is_encoder_decoder",
                                           "keys_to_ignore_at_inference",
                                           "label2id",
                                           "length_penalty",
                                           "low_memory",
                                           "mask_token_id",
                                           "max_length",
                                           "max_new_tokens",
                                           "max_seq_len",
                                           "max_seq_length",
                                           "max_sequence_length",
                                           "max_time",
                                           "min_length",
                                           "min_new_tokens",
                                           "min_p",
                                           "model_max_length",
                                           "n_ctx",
                                           "n_special",
                                           "no_repeat_ngram_size",
                                           "num_assistant_tokens",
                                           "num_assistant_tokens_schedule",
                                           "num_beam_groups",
                                           "num_beams",
                                           "num_labels",
                                           "num_return_sequences",
                                           "output_attentions",
                                           "output_hidden_states",
                                           "output_logits",
                                           "output_past",
                                           "output_router_logits",
                                           "output_scores",
                                           "pad_token_id",
                                           "penalty_alpha",
                                           "predict_special_tokens",
                                           "prefix",
                                           "pretraining_tp",
                                           "problem_type",
                                           "prompt_lookup_num_tokens",
                                           "remove_invalid_values",
                                           "renormalize_logits",
                                           "repetition_penalty",
                                           "resid_pdrop",
                                           "return_dict",
                                           "return_dict_in_generate",
                                           "router_aux_loss_coef",
                                           "sep_token_id",
                                           "sequence_bias",
                                           "stop_strings",
                                           "summary_activation",
                                           "summary_first_dropout",
                                           "summary_proj_to_labels",
                                           "summary_type",
                                           "summary_use_proj",
                                           "suppress_tokens",
                                           "task_specific_params",
                                           "temperature",
                                           "tf_legacy_loss",
                                           "token_healing",
                                           "tokenizer_class",
                                           "top_k",
                                           "top_p",
                                           "torch_dtype",
                                           "torchscript",
                                           "transformers.js_config",
                                           "transformers_version",
                                           "typical_p",
                                           "unk_token_id",
                                           "unsloth_fixed",
                                           "unsloth_version",
                                           "use_bfloat16",
                                           "use_cache",
                                           "use_flash_attention",
                                           "use_flash_attention_2",
                                           "use_return_dict",
                                           "watermarking_config",
                                           "xla_device"};

// Inert at these values: the part that the member describes is not there.
struct AtValues {
  absl::string_view key;
  absl::string_view values[3];  // as Spelling gives them; empty: no more
};
constexpr AtValues kAtValues[] = {
    {"add_cross_attention", {"false"}},
    {"is_causal", {"true"}},
    {"num_experts", {"0"}},
    {"num_local_experts", {"0"}},
    {"num_nextn_predict_layers", {"0"}},
    {"partial_rotary_factor", {"1", "1.0"}},
    {"pruned_heads", {"{}", "[]"}},
    {"qk_layernorm", {"false"}},
    {"rotary_pct", {"1", "1.0"}},
    {"tie_encoder_decoder", {"false"}},
    {"use_bidirectional_attention", {"false"}},
    {"use_mrope", {"false"}},
    {"use_qk_norm", {"false"}},
};

std::string Spelling(const JsonValue& value) {
  if (value.is_array() && value.size() == 0) return "[]";
  if (value.is_object() && value.size() == 0) return "{}";
  return value.Describe();
}

}  // namespace

bool IsInertField(absl::string_view key, const JsonValue& value) {
  if (value.is_null() || absl::c_linear_search(kAnyValue, key)) return true;
  return absl::c_any_of(kAtValues, [&](const AtValues& field) {
    return field.key == key &&
           absl::c_linear_search(field.values, Spelling(value));
  });
}

}  // namespace qk
