// From a family's own names to features: a ModelConfig, and where each weight
// lies in the file. No tensor code here.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/formats/gguf.h"
#include "engine/formats/json.h"
#include "engine/model_config.h"

namespace qk {

struct WeightRef {
  std::string name;            // in the file; empty: the model has none
  std::vector<int64_t> shape;  // outermost first
  // GGUF stores Q and K of Llama with each head's rows interleaved (pairs of
  // RoPE side by side); this many heads are put back. 0: rows as they are.
  int interleaved_heads = 0;
};

struct LayerWeightRefs {
  WeightRef attention_norm, mlp_norm;
  WeightRef q_proj, k_proj, v_proj, o_proj;
  WeightRef q_bias, k_bias, v_bias, o_bias;
  WeightRef gate_proj, up_proj, down_proj;
  WeightRef gate_bias, up_bias, down_bias;
};

struct Architecture {
  ModelConfig config;
  WeightRef embedding, final_norm, lm_head;
  std::vector<LayerWeightRefs> layers;
  // GGUF only: divisors of the RoPE frequencies (Llama 3 scaling).
  WeightRef rope_factors;
};

// From a Hugging Face config.json. INVALID_ARGUMENT: a bad value.
// UNIMPLEMENTED: an architecture, or a field that changes the numbers, that
// the engine does not have; named.
absl::StatusOr<Architecture> ArchitectureFromConfig(const JsonValue& config);

// From a GGUF file's metadata.
absl::StatusOr<Architecture> ArchitectureFromGguf(const GgufFile& file);

// One function per family; the two above choose by name.
absl::StatusOr<Architecture> LlamaFromConfig(const JsonValue& config,
                                             absl::string_view model_type);
absl::StatusOr<Architecture> LlamaFromGguf(const GgufFile& file);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_ARCHITECTURE_H_
