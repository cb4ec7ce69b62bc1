// What a model is, as features. Code tests these fields and never a model's
// name; engine/architectures/ makes them from config.json or GGUF metadata.
#ifndef QKSCOPE_ENGINE_MODEL_CONFIG_H_
#define QKSCOPE_ENGINE_MODEL_CONFIG_H_

#include <optional>
#include <string>
#include <vector>

namespace qk {

enum class NormKind { kRms };
enum class Activation { kSilu };

struct RopeConfig {
  double theta = 10000.0;
  int rotary_dims = 0;
  std::string scaling = "none";  // for display: "none", "linear", "llama3"
  // Radians per token of each pair of dims (i, i + rotary_dims / 2), scaling
  // applied; size rotary_dims / 2. Empty: no RoPE.
  std::vector<double> frequencies;

  // 2 pi / frequency, tokens; same size.
  std::vector<double> Wavelengths() const;
};

struct AttentionConfig {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;  // of QK^T
  bool qkv_bias = false;
  bool o_bias = false;
  std::optional<int> sliding_window;  // keys seen, the row's own included
  RopeConfig rope;

  int q_size() const { return num_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }
  int group_size() const { return num_heads / num_kv_heads; }
};

struct MlpConfig {
  int intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;
};

struct LayerConfig {
  AttentionConfig attention;
  MlpConfig mlp;
};

struct ModelConfig {
  std::string architecture;  // for display only, e.g. "llama"
  int hidden_size = 0;
  int vocab_size = 0;
  int context_length = 0;  // tokens
  NormKind norm = NormKind::kRms;
  float norm_eps = 0;
  bool tied_head = false;  // lm_head shares the embedding's weights
  std::vector<LayerConfig> layers;

  int num_layers() const { return static_cast<int>(layers.size()); }
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_CONFIG_H_
