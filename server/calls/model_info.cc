#include "server/calls/model_info.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "engine/model/model.h"
#include "engine/tokenizer/chat_formats.h"
#include "server/common/grpc_status.h"
#include "server/common/text.h"
#include "server/convert/presets.h"

namespace qk {
namespace {

constexpr size_t kMaxReason = 2048;  // bytes

bool SameRope(const RopeConfig& a, const RopeConfig& b) {
  return a.theta == b.theta && a.rotary_dims == b.rotary_dims &&
         a.scaling == b.scaling && a.frequencies == b.frequencies;
}

pb::RopeInfo RopeInfoOf(const RopeConfig& rope) {
  pb::RopeInfo out;
  out.set_theta(rope.theta);
  out.set_rotary_dims(rope.rotary_dims);
  out.set_scaling(rope.scaling);
  for (double wavelength : rope.Wavelengths(/*positions=*/1)) {
    out.add_wavelengths(wavelength);
  }
  return out;
}

void SetLayers(const ModelConfig& config, pb::ModelInfo* out) {
  std::vector<const RopeConfig*> ropes;
  for (const LayerConfig& layer : config.layers) {
    const AttentionConfig& attention = layer.attention;
    pb::LayerInfo* info = out->add_layers();
    if (layer.mamba.inner_size > 0) {
      info->set_kind("mamba");
      continue;
    }
    info->set_kind("attention");
    info->set_num_heads(attention.num_heads);
    info->set_num_kv_heads(attention.num_kv_heads);
    info->set_head_dim(attention.head_dim);
    if (attention.sliding_window.has_value()) {
      info->set_sliding_window(*attention.sliding_window);
    }
    if (attention.rope.frequencies.empty()) continue;
    const auto known =
        std::find_if(ropes.begin(), ropes.end(), [&](const RopeConfig* rope) {
          return SameRope(*rope, attention.rope);
        });
    info->set_rope(static_cast<int>(known - ropes.begin()));
    if (known == ropes.end()) {
      ropes.push_back(&attention.rope);
      *out->add_rope() = RopeInfoOf(attention.rope);
    }
  }
}

void SetNotes(const ModelDescription& description, pb::ModelInfo* out) {
  out->set_text_problem(StripPaths(description.text_problem));
  SetIgnored(description.ignored, out);
  for (const std::string& warning : description.warnings) {
    out->add_warnings(warning);
  }
}

pb::VisionInfo VisionInfoOf(const ModelConfig& config) {
  const VisionConfig& vision = config.vision;
  pb::VisionInfo out;
  out.set_num_layers(vision.num_layers);
  out.set_num_heads(vision.attention.num_heads);
  out.set_head_dim(vision.attention.head_dim);
  out.set_hidden_size(vision.hidden_size);
  out.set_output_size(config.hidden_size);
  out.set_patch_size(vision.patch_size);
  out.set_temporal_patch_size(vision.temporal_patch_size);
  out.set_merge_size(vision.merge_size);
  out.set_channels(vision.channels);
  out.set_image_token(vision.image_token);
  out.set_min_pixels(vision.processing.min_pixels);
  out.set_max_pixels(vision.processing.max_pixels);
  return out;
}

pb::ModelInfo::State StateOf(ModelState state) {
  switch (state) {
    case ModelState::kLoading:
      return pb::ModelInfo::LOADING;
    case ModelState::kReady:
      return pb::ModelInfo::READY;
    case ModelState::kUnloading:
      return pb::ModelInfo::UNLOADING;
    case ModelState::kFailed:
      return pb::ModelInfo::FAILED;
  }
  return pb::ModelInfo::STATE_UNSPECIFIED;
}

void SetLimits(const Limits& limits, pb::Limits* out) {
  out->set_max_text_bytes(limits.max_text_bytes);
  out->set_max_arms(limits.max_arms);
  out->set_max_rules_per_arm(limits.max_rules_per_arm);
  out->set_max_list_entries(limits.max_list_entries);
  out->set_max_new_tokens(limits.max_new_tokens);
  out->set_max_queued_requests(limits.max_queued_requests);
  out->set_max_response_bytes(limits.max_response_bytes);
  out->set_max_deadline_ms(limits.max_deadline_ms);
  out->set_max_score_pairs(limits.max_score_pairs);
  out->set_max_chunk_bytes(kMaxChunkBytes);
  out->set_max_stop_strings(kMaxStops);
  out->set_max_stop_string_bytes(kMaxStopBytes);
  out->set_max_stop_token_ids(kMaxStops);
  out->set_max_many_prompts(kMaxManyPrompts);
}

// The tokens that begin a text and end a generation.
void SetSpecialTokens(const ModelConfig& config, const Tokenizer* tokenizer,
                      pb::ModelInfo* out) {
  std::vector<int32_t> ends;
  if (tokenizer != nullptr) {
    if (tokenizer->bos_id().has_value()) {
      out->set_bos_token_id(*tokenizer->bos_id());
    }
    ends = tokenizer->stop_ids();
  }
  for (int32_t id : config.eos_ids) {
    if (!absl::c_linear_search(ends, id)) ends.push_back(id);
  }
  out->mutable_eos_token_ids()->Assign(ends.begin(), ends.end());
}

}  // namespace

const char* ComputeName(ComputeType type) {
  return type == ComputeType::kF32 ? "f32" : "bf16";
}

pb::ModelInfo ModelInfoOf(const ModelEntry& entry, const BackendInfo& backend) {
  const ModelConfig& config = entry.description.config;
  pb::ModelInfo out;
  out.set_name(entry.name);
  out.set_state(StateOf(entry.state));
  if (!entry.failure.ok()) {
    // Cut as in a call's status.
    out.set_failure(StripPaths(entry.failure.message()).substr(0, kMaxReason));
  }
  out.set_architecture(config.architecture);
  out.set_num_layers(config.num_layers());
  out.set_hidden_size(config.hidden_size);
  out.set_vocab_size(config.vocab_size);
  out.set_context_length(config.context_length);
  out.set_weights_dtype(entry.description.weights_dtype);
  out.set_compute_type(ComputeName(entry.compute));
  out.set_backend(backend.name);
  out.set_device(backend.device);
  out.set_parameters(entry.description.parameters);
  SetNotes(entry.description, &out);
  SetLayers(config, &out);
  SetSpecialTokens(config,
                   entry.model == nullptr ? nullptr : entry.model->tokenizer(),
                   &out);
  if (config.vision.num_layers > 0) {
    *out.mutable_vision() = VisionInfoOf(config);
  }
  if (entry.model == nullptr) return out;
  out.set_host_bytes(entry.model->host_bytes());
  out.set_device_bytes(entry.model->device_bytes());
  out.set_weights_sha256(entry.model->weights_sha256());
  if (entry.model->tokenizer() != nullptr) {
    out.set_tokenizer_sha256(entry.model->tokenizer()->sha256_hex());
    out.set_word_splitting(
        entry.model->tokenizer()->runs_pattern() ? "pattern" : "built in");
  }
  for (const MatMulGroup& group : entry.model->matmuls()) {
    pb::MatMulGroup* matmul = out.add_matmuls();
    matmul->set_kernel(group.choice.kernel);
    matmul->set_out_features(group.out_features);
    matmul->set_in_features(group.in_features);
    matmul->set_matrices(group.matrices);
    matmul->set_passed_over(group.choice.passed_over.substr(0, kMaxReason));
  }
  out.set_load_ms(static_cast<int64_t>(entry.model->load_seconds() * 1e3));
  const auto& non_finite = entry.model->non_finite_weights();
  if (non_finite.has_value() && non_finite->count > 0) {
    pb::NonFiniteWeights* weights = out.mutable_non_finite_weights();
    weights->set_count(non_finite->count);
    weights->set_tensor(non_finite->tensor);
    weights->mutable_index()->Assign(non_finite->index.begin(),
                                     non_finite->index.end());
  }
  return out;
}

pb::ServerInfo ServerInfoOf(const ServerDescription& server,
                            const Limits& limits, const ResultStore* store) {
  pb::ServerInfo out;
  out.set_version(server.version);
  out.set_replica(server.replica);
  SetLimits(limits, out.mutable_limits());
  if (store != nullptr) {
    out.mutable_limits()->set_result_ttl_s(absl::ToInt64Seconds(store->ttl()));
  }
  pb::BackendInfo* backend = out.add_backends();
  backend->set_name(server.backend.name);
  backend->set_device(server.backend.device);
  backend->set_threads(server.backend.threads);
  for (const std::string& id : server.backend.kernel_ids) {
    backend->add_kernel_ids(id);
  }
  backend->set_passed_over(server.passed_over);
  for (absl::string_view format : ChatFormatNames()) {
    out.add_chat_formats(std::string(format));
  }
  for (const std::string& preset : PresetNames()) out.add_presets(preset);
  for (const auto& [name, version] : server.backend.library_versions) {
    (*out.mutable_library_versions())[name] = version;
  }
  return out;
}

}  // namespace qk
