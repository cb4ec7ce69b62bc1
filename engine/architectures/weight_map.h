// From a model's features and its family's names to where each weight lies.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_

#include "engine/architectures/architecture.h"

namespace qk {

// What a family calls its tensors, without ".weight" and ".bias"; null: it has
// no such tensor.
struct WeightNames {
  const char* embedding = nullptr;
  const char* positions = nullptr;
  const char* project_in = nullptr;
  const char* project_out = nullptr;
  const char* final_norm = nullptr;
  const char* lm_head = nullptr;  // where it is not tied

  // The rest follow this and the layer's number and a dot.
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

  // Fused: the rows of q, then of k, then of v; with qkv_per_head of each head
  // in turn. The rows of gate, then of up.
  const char* qkv = nullptr;
  bool qkv_per_head = false;
  const char* gate_up = nullptr;

  // What gate, up and down begin with; in layers with experts it is `experts`,
  // a number and a dot.
  const char* mlp = "";
  const char* router = nullptr;
  const char* experts = nullptr;
  const char* mamba = nullptr;  // what its tensors begin with

  bool transposed = false;   // projections are (in, out)
  bool interleaved = false;  // rows of q and k as in GGUF's Llama
  float plus = 0.0f;         // added to the norms' weights
};

// Hugging Face's names of Llama, which most of the younger families share.
WeightNames LlamaNames();
// GPT-2's, but for attention's: GPT-Neo has its own there.
WeightNames Gpt2Names();

// Of one layer of `config`, whose other fields may be a tower's.
LayerWeightRefs MapLayer(const ModelConfig& config, const WeightNames& names,
                         int layer);

// One ref for every weight that `config` asks for.
Architecture MapWeights(ModelConfig config, const WeightNames& names);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_WEIGHT_MAP_H_
