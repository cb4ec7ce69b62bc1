// The bytes before the first NUL are a config.json; the bytes after it are the
// preprocessor_config.json beside it.
#include <cmath>
#include <limits>

#include "engine/architectures/architecture.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_image_processor.h"
#include "engine/formats/json.h"
#include "tests/fuzz/fuzz.h"

namespace qk {
namespace {

bool InRange(int64_t value, int64_t max) { return value >= 1 && value <= max; }

bool IsPositive(double value) { return std::isfinite(value) && value > 0; }

void CheckRope(const RopeConfig& rope, int head_dim, int context) {
  if (rope.frequencies.empty()) return;
  QK_CHECK(rope.rotary_dims % 2 == 0 && InRange(rope.rotary_dims, head_dim));
  const size_t pairs = static_cast<size_t>(rope.rotary_dims) / 2;
  for (int positions : {1, context}) {
    const std::vector<double> frequencies = rope.FrequenciesFor(positions);
    QK_CHECK(frequencies.size() == pairs);
    for (double frequency : frequencies) QK_CHECK(IsPositive(frequency));
  }
  QK_CHECK(IsPositive(rope.attention_factor));
  size_t turned = 0;
  for (int section : rope.sections) {
    QK_CHECK(section >= 0);
    turned += static_cast<size_t>(section);
  }
  QK_CHECK(rope.sections.empty() || turned == pairs);
}

void CheckAttention(const AttentionConfig& attention, int context) {
  QK_CHECK(InRange(attention.num_heads, kMaxWidth));
  QK_CHECK(InRange(attention.num_kv_heads, attention.num_heads));
  QK_CHECK(attention.num_heads % attention.num_kv_heads == 0);
  QK_CHECK(InRange(attention.head_dim, kMaxHeadDim));
  QK_CHECK(IsPositive(attention.scale));
  QK_CHECK(attention.softcap >= 0 && std::isfinite(attention.softcap));
  QK_CHECK(InRange(attention.sliding_window.value_or(1), kMaxContext));
  CheckRope(attention.rope, attention.head_dim, context);
}

void CheckMlp(const MlpConfig& mlp, int64_t max) {
  QK_CHECK(InRange(mlp.intermediate_size, max));
  QK_CHECK(InRange(mlp.num_experts, std::numeric_limits<int>::max()));
  QK_CHECK(InRange(mlp.experts_per_token, mlp.num_experts));
}

void CheckLayer(const LayerConfig& layer, int context) {
  const MambaConfig& mamba = layer.mamba;
  if (mamba.inner_size == 0) {
    CheckAttention(layer.attention, context);
  } else {
    QK_CHECK(layer.attention.num_heads == 0);
    QK_CHECK(InRange(mamba.inner_size, kMaxWidth));
    QK_CHECK(mamba.state_size >= 1 && mamba.conv_kernel >= 1);
    QK_CHECK(InRange(mamba.dt_rank, kMaxWidth));
  }
  CheckMlp(layer.mlp, 4 * kMaxWidth);
}

void CheckVision(const VisionConfig& vision) {
  QK_CHECK(InRange(vision.num_layers, kMaxLayers));
  QK_CHECK(InRange(vision.hidden_size, kMaxWidth));
  QK_CHECK(vision.patch_values() >= 1 && vision.merged_size() >= 1);
  CheckAttention(vision.attention, 1);
  CheckMlp(vision.mlp, std::numeric_limits<int>::max());
  CheckMlp(vision.merger, std::numeric_limits<int>::max());
}

void CheckConfig(const ModelConfig& config) {
  QK_CHECK(InRange(config.num_layers(), kMaxLayers));
  QK_CHECK(InRange(config.hidden_size, kMaxWidth));
  QK_CHECK(InRange(config.embedding_size, kMaxWidth));
  QK_CHECK(InRange(config.vocab_size, kMaxVocab));
  QK_CHECK(InRange(config.context_length, kMaxContext));
  QK_CHECK(config.position_rows == 0 ||
           config.position_rows ==
               config.context_length + config.position_offset);
  QK_CHECK(IsPositive(config.embedding_scale));
  QK_CHECK(config.norm_eps >= 0 && config.norm_eps <= 1);
  QK_CHECK(config.logit_softcap >= 0 && std::isfinite(config.logit_softcap));
  for (const LayerConfig& layer : config.layers) {
    CheckLayer(layer, config.context_length);
  }
  if (config.vision.num_layers == 0) return;
  CheckVision(config.vision);
  QK_CHECK(config.vision.image_token >= 0 &&
           config.vision.image_token < config.vocab_size);
}

void CheckWeight(const WeightRef& ref) {
  QK_CHECK(!ref.shape.empty() && std::isfinite(ref.plus));
  int64_t bytes = sizeof(float);
  for (const int64_t size : ref.shape) {
    QK_CHECK(size >= 1 && !__builtin_mul_overflow(bytes, size, &bytes));
  }
  if (ref.fused_rows == 0) return;
  const int64_t last = ref.shape[0] - 1;
  const int64_t block = ref.block_rows == 0 ? ref.shape[0] : ref.block_rows;
  QK_CHECK(ref.first_row >= 0 && block >= 1);
  QK_CHECK(ref.first_row + last / block * ref.block_stride + last % block <
           ref.fused_rows);
}

void CheckArchitecture(const Architecture& architecture) {
  const ModelConfig& config = architecture.config;
  CheckConfig(config);
  for (const WeightRef* ref : AllWeights(architecture)) CheckWeight(*ref);
  QK_CHECK(architecture.layers.size() == config.layers.size());
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const LayerWeightRefs& refs = architecture.layers[i];
    QK_CHECK(refs.q_proj.name.empty() ==
             (config.layers[i].attention.num_heads == 0));
    QK_CHECK(static_cast<int>(refs.mlps.size()) ==
             config.layers[i].mlp.num_experts);
  }
  const Packing& packing = architecture.packing;
  if (packing.method == Packing::Method::kNone) return;
  QK_CHECK(packing.bits == 4);
  QK_CHECK(
      packing.group_size == -1 ||
      (packing.group_size % 32 == 0 && InRange(packing.group_size, kMaxWidth)));
}

void CheckProcessing(absl::string_view text, const VisionConfig& vision) {
  const auto json = JsonDocument::Parse("preprocessor_config", text, {});
  if (!json.ok()) return fuzz::CheckMessage(json.status());
  const auto processing = ReadImageProcessing(json->root(), vision);
  if (!processing.ok()) return fuzz::CheckMessage(processing.status());
  QK_CHECK(InRange(processing->min_pixels, processing->max_pixels));
  QK_CHECK(processing->max_pixels <= kMostPixels);
  for (size_t i = 0; i < 3; ++i) {
    QK_CHECK(std::isfinite(processing->mean[i]));
    QK_CHECK(IsPositive(processing->deviation[i]));
  }
}

void CheckFiles(absl::string_view text) {
  const size_t nul = text.find('\0');
  const auto json = JsonDocument::Parse("config", text.substr(0, nul), {});
  if (!json.ok()) return fuzz::CheckMessage(json.status());
  const auto architecture = ArchitectureFromConfig(json->root());
  if (!architecture.ok()) return fuzz::CheckMessage(architecture.status());
  CheckArchitecture(*architecture);
  const VisionConfig& vision = architecture->config.vision;
  if (vision.num_layers == 0 || nul == absl::string_view::npos) return;
  CheckProcessing(text.substr(nul + 1), vision);
}

}  // namespace
}  // namespace qk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  qk::CheckFiles(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
