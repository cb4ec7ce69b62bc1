// Translates a family's own names into features: a ModelConfig, and where each
// weight lies in the file. There is no tensor code here.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/formats/gguf.h"
#include "engine/formats/json.h"
#include "engine/formats/tensor_source.h"
#include "engine/types/model_config.h"

namespace qk {

// Where a weight lies in the file. `shape` is the engine's, outermost dimension
// first; the fields below it say how the file's tensor differs.
struct WeightRef {
  std::string name;  // in the file; empty: the model does not have it
  std::vector<int64_t> shape;
  // GGUF stores Llama's Q and K with each head's rows interleaved, so that the
  // two rows of a RoPE pair are neighbours. The reader restores this many
  // heads; 0: the rows are in order.
  int interleaved_heads = 0;
  // The file's tensor is (in, out), as in GPT-2's Conv1D.
  bool transposed = false;
  // Set if the weight is part of a fused tensor of `fused_rows` rows (outputs):
  // row r is the file's row first_row + (r / block_rows) * block_stride + r %
  // block_rows. block_rows 0 means one block; fused_rows 0 means not fused.
  int64_t fused_rows = 0;
  int64_t first_row = 0;
  int64_t block_rows = 0;
  int64_t block_stride = 0;
  // This is added to every element (Gemma stores its norms as weight - 1).
  float plus = 0.0f;
};

struct NormRef {
  WeightRef weight, bias;  // an RMS norm has no bias
};

struct MlpWeightRefs {
  WeightRef gate_proj, up_proj, down_proj;
  WeightRef gate_bias, up_bias, down_bias;
};

// Mamba (arXiv:2312.00752) with Jamba's norms of dt, B and C.
struct MambaWeightRefs {
  WeightRef in_proj, in_bias;    // (2 * inner, hidden)
  WeightRef conv, conv_bias;     // (inner, 1, kernel)
  WeightRef x_proj;              // (dt_rank + 2 * state, inner)
  WeightRef dt_proj, dt_bias;    // (inner, dt_rank)
  WeightRef a_log, d;            // (inner, state), (inner)
  WeightRef out_proj, out_bias;  // (hidden, inner)
  WeightRef dt_norm, b_norm, c_norm;
};

struct LayerWeightRefs {
  NormRef attention_norm, mlp_norm;
  NormRef post_attention_norm, post_mlp_norm;  // NormPlacement::kSandwich
  WeightRef q_proj, k_proj, v_proj, o_proj;
  WeightRef q_bias, k_bias, v_bias, o_bias;
  WeightRef q_norm, k_norm;  // (head_dim)
  MambaWeightRefs mamba;
  WeightRef router;  // (num_experts, hidden); absent with one expert
  std::vector<MlpWeightRefs> mlps;  // one per expert
};

struct VisionWeightRefs {
  WeightRef patch_embed;  // (hidden, channels, frames, rows, columns)
  std::vector<LayerWeightRefs> layers;
  NormRef merger_norm;   // (hidden)
  MlpWeightRefs merger;  // (merged, merged), (text's hidden, merged)
};

// Linear weights packed into a few bits, in a Hugging Face checkpoint.
struct Packing {
  enum class Method { kNone, kAwq, kGptq };
  Method method = Method::kNone;
  int bits = 0;
  int group_size = 0;      // inputs that share a scale; -1: a whole row
  bool desc_act = false;   // GPTQ: g_idx lists the inputs of the groups
  bool sym = false;        // GPTQ: all zero points are in the middle
  bool zero_point = true;  // AWQ: there are zero points
  bool v2 = false;  // GPTQ: zero points are stored as they are, not minus 1
  // Modules that are not packed, by parts of their names: whole components,
  // such as "layers.1" of "model.layers.1.mlp".
  std::vector<std::string> modules_to_not_convert;

  bool operator==(const Packing&) const = default;
};

struct Architecture {
  ModelConfig config;
  Packing packing;
  WeightRef embedding;  // (vocab, embedding_size)
  WeightRef positions;  // (position_rows, hidden)
  WeightRef project_in,
      project_out;  // (hidden, embedding_size), (embedding_size, hidden)
  NormRef final_norm;
  WeightRef lm_head;  // (vocab, embedding_size)
  std::vector<LayerWeightRefs> layers;
  VisionWeightRefs vision;
  // GGUF only: divisors of the RoPE frequencies (Llama 3 scaling), and
  // LongRoPE's two sets.
  WeightRef rope_factors, rope_factors_long, rope_factors_short;
  // Tensors whose names end like this occur in the family's checkpoints and
  // change no number (causal masks, for example).
  std::vector<std::string> ignored;
  // Tensors whose names begin like this belong to parts that are not served,
  // such as a vision tower beside the language model.
  std::vector<std::string> ignored_prefixes;
  // The name of lm_head where it is not tied. A tied model may be stored with
  // this tensor in place of the embedding.
  std::string own_lm_head;
  // As in ModelDescription.
  std::vector<std::string> warnings;
  // Other beginnings that published checkpoints give to names: {ours, theirs}.
  std::vector<std::pair<std::string, std::string>> other_prefixes;
};

// Reads a Hugging Face config.json. INVALID_ARGUMENT: a bad value.
// UNIMPLEMENTED names an architecture, or a field that changes the numbers,
// that the engine does not have.
absl::StatusOr<Architecture> ArchitectureFromConfig(const JsonValue& config);

// Reads a GGUF file's metadata.
absl::StatusOr<Architecture> ArchitectureFromGguf(const GgufFile& file);

// Returns every weight of the model, in no particular order. A tied lm_head
// occurs twice.
std::vector<WeightRef*> AllWeights(Architecture* architecture);
std::vector<const WeightRef*> AllWeights(const Architecture& architecture);

// Renames the weights where the file uses one of `other_prefixes`, or has
// `own_lm_head` in place of the embedding. Call this before looking for the
// weights.
void ResolvePrefixes(const TensorSource& source, Architecture* architecture);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_
