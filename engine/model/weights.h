// A model's weights on its backend, made uniform: no fused projections, Hugging
// Face's row order, every shape checked.
#ifndef QKSCOPE_ENGINE_MODEL_WEIGHTS_H_
#define QKSCOPE_ENGINE_MODEL_WEIGHTS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/architectures/architecture.h"
#include "engine/backend/backend.h"
#include "engine/formats/tensor_source.h"
#include "engine/model/matmul_groups.h"

namespace qk {

class WeightScan;

struct NormWeights {
  DeviceBuffer weight;  // (dim)
  DeviceBuffer bias;    // (dim); empty in an RMS norm
};

struct MlpWeights {
  std::unique_ptr<Matrix> gate_proj;  // (intermediate, hidden); gated only
  std::unique_ptr<Matrix> up_proj;    // (intermediate, hidden)
  std::unique_ptr<Matrix> down_proj;  // (hidden, intermediate)
};

struct MambaWeights {
  std::unique_ptr<Matrix> x_proj, gate_proj;       // (inner, hidden)
  DeviceBuffer conv, conv_bias;                    // (inner, kernel), (inner)
  std::unique_ptr<Matrix> dt_low, b_proj, c_proj;  // (dt_rank | state, inner)
  DeviceBuffer dt_norm, b_norm, c_norm;            // (dt_rank), (state)
  std::unique_ptr<Matrix> dt_proj;                 // (inner, dt_rank)
  DeviceBuffer a_log, d;                           // (inner, state), (inner)
  std::unique_ptr<Matrix> out_proj;                // (hidden, inner)
};

struct LayerWeights {
  NormWeights attention_norm, mlp_norm;            // (hidden)
  NormWeights post_attention_norm, post_mlp_norm;  // (hidden), kSandwich only
  std::unique_ptr<Matrix> q_proj;  // (num_heads * head_dim, hidden)
  std::unique_ptr<Matrix> k_proj;  // (num_kv_heads * head_dim, hidden)
  std::unique_ptr<Matrix> v_proj;  // (num_kv_heads * head_dim, hidden)
  std::unique_ptr<Matrix> o_proj;  // (hidden, num_heads * head_dim)
  DeviceBuffer q_norm, k_norm;     // (head_dim), qk_norm only
  MambaWeights mamba;              // for layers without attention
  std::unique_ptr<Matrix>
      router;                    // (num_experts, hidden); null with one expert
  std::vector<MlpWeights> mlps;  // one per expert
};

struct VisionWeights {
  std::unique_ptr<Matrix> patch_embed;  // (hidden, patch_values)
  std::vector<LayerWeights> layers;
  NormWeights merger_norm;  // (hidden)
  MlpWeights merger;        // (merged, merged), (text's hidden, merged)
};

struct Weights {
  DeviceBuffer embedding;  // (vocab, embedding_size), compute type
  DeviceBuffer positions;  // (position_rows, hidden), compute type; may be none
  std::unique_ptr<Matrix> project_in;   // (hidden, embedding_size), or none
  std::unique_ptr<Matrix> project_out;  // (embedding_size, hidden), or none
  std::vector<LayerWeights> layers;
  NormWeights final_norm;            // (hidden), or none
  std::unique_ptr<Matrix> lm_head;   // (vocab, embedding_size)
  VisionWeights vision;              // for a model with a tower
  int64_t bytes = 0;                 // of all weights together
  std::vector<MatMulGroup> matmuls;  // of all matrices, in the order of loading
};

// Writes the norm of x, of the model's kind, to out (rows, hidden); out may be
// x.
void Norm(const ModelConfig& config, const NormWeights& weights, const float* x,
          int rows, float* out, Backend& backend);

// Checks that the source has every tensor of the architecture, in its shape.
// INVALID_ARGUMENT: `missing 'NAME'` or `'NAME': expected [..], got [..]`; or a
// tensor that the architecture does not use and `ignored` does not name
// (IgnoredParts::tensors).
absl::Status CheckWeights(const Architecture& architecture,
                          const TensorSource& source,
                          const std::vector<std::string>& ignored);

// The bytes of all weights; a tied lm_head counts twice.
int64_t CountElements(const Architecture& architecture);

// The weights must have been checked. `progress` gets the share that is done,
// in [0, 1]. `scan`, unless null, looks at every weight for NaN and infinities.
absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(
    const Architecture& architecture, TensorSource& source, ComputeType type,
    Backend* backend, const std::function<void(double)>& progress,
    WeightScan* scan);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_WEIGHTS_H_
