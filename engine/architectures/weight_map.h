// Combines a model's features and its family's names into the place of each
// weight.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_

#include "engine/architectures/architecture.h"

namespace qk {

// A family's names of its tensors, without ".weight" and ".bias". null: there
// is no such tensor.
struct WeightNames {
  // The beginning of all names but lm_head's, which files of the model without
  // its head do not have.
  const char* root = nullptr;
  const char* embedding = nullptr;
  const char* positions = nullptr;
  const char* project_in = nullptr;
  const char* project_out = nullptr;
  const char* final_norm = nullptr;
  const char* lm_head = nullptr;  // where it is not tied

  // The remaining names follow this prefix, the layer's number and a dot.
  const char* layer = nullptr;
  const char* attention_norm = nullptr;
  const char* mlp_norm = nullptr;
  const char* post_attention_norm = nullptr;
  const char* post_mlp_norm = nullptr;
  const char* q = nullptr;
  const char* k = nullptr;
  const char* v = nullptr;
  const char* o = nullptr;
  const char* q_norm = nullptr;
  const char* k_norm = nullptr;
  const char* gate = nullptr;
  const char* up = nullptr;
  const char* down = nullptr;

  // Fused tensors: the rows of q, then of k, then of v (with qkv_per_head,
  // those of each head in turn); the rows of gate, then of up.
  const char* qkv = nullptr;
  bool qkv_per_head = false;
  const char* gate_up = nullptr;

  // The prefix of gate, up and down. In layers with experts it is `experts`, a
  // number and a dot.
  const char* mlp = "";
  const char* router = nullptr;
  const char* experts = nullptr;
  const char* mamba = nullptr;  // the prefix of its tensors

  bool transposed = false;   // projections are (in, out)
  bool interleaved = false;  // rows of q and k are in the order of GGUF's Llama
  float plus = 0.0f;         // added to the weights of norms
};

// Hugging Face's names for Llama, which most younger families share.
WeightNames LlamaNames();
// GPT-2's names except those of attention, for which GPT-Neo has its own.
WeightNames Gpt2Names();

// Returns the refs of one layer of `config`; the config's other fields may
// describe a tower.
LayerWeightRefs MapLayer(const ModelConfig& config, const WeightNames& names,
                         int layer);

// Returns one ref for every weight that `config` asks for.
Architecture MapWeights(ModelConfig config, const WeightNames& names);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_
