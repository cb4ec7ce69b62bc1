// What a model is, as features. Code tests these fields and never a model's
// name; engine/architectures/ fills them in from config.json or GGUF metadata.
#ifndef QKSCOPE_ENGINE_TYPES_MODEL_CONFIG_H_
#define QKSCOPE_ENGINE_TYPES_MODEL_CONFIG_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qk {

enum class NormKind {
  kRms,    // x / rms(x) * weight
  kLayer,  // (x - mean(x)) / std(x) * weight + bias
};

// Where a block normalises; f is attention or MLP, n a norm.
enum class NormPlacement {
  kPre,       // hidden += f(n(hidden))
  kPost,      // hidden = n(hidden + f(hidden))
  kSandwich,  // hidden += n'(f(n(hidden)))
};

enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kQuickGelu };

// Returns theta ^ (-2 i / rotary_dims) for each pair i, in float32 as
// transformers computes it; size rotary_dims / 2.
std::vector<double> BaseFrequencies(double theta, int rotary_dims);

struct RopeConfig {
  double theta = 10000.0;
  int rotary_dims = 0;  // the first dims of a head; the others do not rotate
  // For display: "none", "linear", "dynamic", "llama3", "yarn", "longrope".
  std::string scaling = "none";
  // Radians per token of each pair of dims (i, i + rotary_dims / 2), with the
  // scaling applied; size rotary_dims / 2. Empty: no RoPE.
  std::vector<double> frequencies;
  // The factor of cos and sin (YaRN, LongRoPE).
  double attention_factor = 1.0;
  // Scalings that depend on the sequence's length. Beyond `original_context`
  // positions LongRoPE uses `long_frequencies`; dynamic NTK (`dynamic_factor`
  // set) uses frequencies of a theta that grows.
  int original_context = 0;
  std::vector<double> long_frequencies;
  double dynamic_factor = 0;
  // How many pairs, one section after another, rotate with each coordinate of a
  // position: temporal, height and width (M-RoPE), or height and width (a
  // vision tower). Empty: all rotate with the first.
  std::vector<int> sections;

  bool operator==(const RopeConfig&) const = default;

  // The frequencies for a pass after which the sequence has `positions`
  // positions.
  std::vector<double> FrequenciesFor(int positions) const;
  // Whether a sequence that grows from `from` positions (1 or more) to `to`
  // must be computed anew: LongRoPE then has other frequencies for all of them.
  // Dynamic NTK lets cached K keep the frequencies that they were rotated with.
  bool MustRecompute(int from, int to) const;
  // Returns 2 pi / frequency in tokens for each of FrequenciesFor(positions).
  std::vector<double> Wavelengths(int positions) const;
};

struct AttentionConfig {
  int num_heads = 0;  // 0: the layer has no attention
  int num_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;    // factor of QK^T
  float softcap = 0;  // scores become softcap * tanh(score / softcap); 0: none
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;  // RMS norm of each head of Q and K, before RoPE
  bool causal = true;    // false: every row sees all rows of its sequence
  std::optional<int> sliding_window;  // keys seen, the row's own included
  RopeConfig rope;

  int q_size() const { return num_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }
  int group_size() const { return num_heads / num_kv_heads; }
};

// A state-space mixer in place of attention (Jamba's Mamba, v1).
struct MambaConfig {
  int inner_size = 0;  // 0: the layer has none
  int state_size = 0;
  int conv_kernel = 0;
  int dt_rank = 0;
  bool conv_bias = false;
  bool proj_bias = false;

  // The floats that a sequence keeps for the layer.
  int64_t conv_floats() const {
    return int64_t{inner_size} * (conv_kernel > 0 ? conv_kernel - 1 : 0);
  }
  int64_t state_floats() const {
    return conv_floats() + int64_t{inner_size} * state_size;
  }
};

struct MlpConfig {
  int intermediate_size = 0;
  Activation activation = Activation::kSilu;
  // down(activation(gate(x)) * up(x)); false: down(activation(up(x)))
  bool gated = true;
  bool bias = false;
  // Above 1, each row goes to its `experts_per_token` most probable experts.
  int num_experts = 1;
  int experts_per_token = 1;
};

struct LayerConfig {
  AttentionConfig attention;
  MambaConfig mamba;
  MlpConfig mlp;
};

// How image files become patches (preprocessor_config.json).
struct ImageProcessing {
  // An image is resized to a number of pixels between these.
  int min_pixels = 56 * 56;
  int max_pixels = 28 * 28 * 1280;
  // Per channel (red, green, blue) in [0, 1]; the defaults are CLIP's.
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> deviation = {0.26862954, 0.26130258, 0.27577711};
};
// Published models ask for no more than this.
inline constexpr int kMostPixels = 28 * 28 * 16384;

// A vision tower: layers of LayerNorm, attention within a frame, and MLP over
// patches of pixels; merge_size x merge_size patches then become one row of the
// text's hidden size.
struct VisionConfig {
  int num_layers = 0;  // 0: the model has no tower
  int hidden_size = 0;
  int channels = 0;
  int temporal_patch_size = 0;  // frames per patch
  int patch_size = 0;           // rows and columns of pixels per patch
  int merge_size = 0;
  float norm_eps = 0;
  AttentionConfig attention;  // in every layer
  MlpConfig mlp;              // in every layer
  MlpConfig merger;           // for merged patches
  int32_t image_token = 0;    // the id that stands for one row of an image
  ImageProcessing processing;

  int patch_values() const {
    return channels * temporal_patch_size * patch_size * patch_size;
  }
  int merged_size() const { return hidden_size * merge_size * merge_size; }
};

struct ModelConfig {
  std::string architecture;  // for display only, e.g. "llama"
  int hidden_size = 0;
  int vocab_size = 0;
  int context_length = 0;  // tokens
  // The width of the embedding; if it differs from hidden_size, projections
  // lead in and out.
  int embedding_size = 0;
  float embedding_scale = 1.0f;
  // The rows of a learned table of positions; the embedding adds its row
  // position + position_offset. 0: there is no table.
  int position_rows = 0;
  int position_offset = 0;
  NormKind norm = NormKind::kRms;
  NormPlacement norm_placement = NormPlacement::kPre;
  float norm_eps = 0;
  bool final_norm = true;
  // true: hidden += attention(n(hidden)) + mlp(n'(hidden)).
  bool parallel_residual = false;
  float logit_softcap = 0;    // cap of the logits; 0: none
  bool tied_lm_head = false;  // lm_head shares the embedding's weights
  // Tokens that end a generation, in addition to the tokenizer's own.
  std::vector<int32_t> eos_ids;
  std::vector<LayerConfig> layers;
  VisionConfig vision;

  int num_layers() const { return static_cast<int>(layers.size()); }
  // The next two describe the text model, or the vision tower.
  int num_layers(bool of_vision) const {
    return of_vision ? vision.num_layers : num_layers();
  }
  const AttentionConfig& attention(bool of_vision, int layer) const {
    return of_vision ? vision.attention : layers[layer].attention;
  }
  bool has_attention(int layer) const {
    return layers[layer].attention.num_heads > 0;
  }
  // A sequence's states of all Mamba layers lie one after another: floats
  // before a layer's, and of all.
  int64_t mamba_state_offset(int layer) const {
    int64_t floats = 0;
    for (int i = 0; i < layer; ++i) floats += layers[i].mamba.state_floats();
    return floats;
  }
  int64_t mamba_state_floats() const {
    return mamba_state_offset(num_layers());
  }
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_MODEL_CONFIG_H_
