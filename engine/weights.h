// The weights of a model on its backend, made uniform: no fused projections,
// Hugging Face's row order, every shape checked.
#ifndef QKSCOPE_ENGINE_WEIGHTS_H_
#define QKSCOPE_ENGINE_WEIGHTS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/architectures/architecture.h"
#include "engine/backend.h"
#include "engine/formats/tensor_source.h"

namespace qk {

struct LayerWeights {
  DeviceBuffer attention_norm;        // (hidden)
  std::unique_ptr<Matrix> q_proj;     // (num_heads * head_dim, hidden)
  std::unique_ptr<Matrix> k_proj;     // (num_kv_heads * head_dim, hidden)
  std::unique_ptr<Matrix> v_proj;     // (num_kv_heads * head_dim, hidden)
  std::unique_ptr<Matrix> o_proj;     // (hidden, num_heads * head_dim)
  DeviceBuffer mlp_norm;              // (hidden)
  std::unique_ptr<Matrix> gate_proj;  // (intermediate, hidden)
  std::unique_ptr<Matrix> up_proj;    // (intermediate, hidden)
  std::unique_ptr<Matrix> down_proj;  // (hidden, intermediate)
  const float* rope = nullptr;        // (context, 2, rotary / 2), or none
};

struct Weights {
  DeviceBuffer embedding;  // (vocab, hidden), compute type
  std::vector<LayerWeights> layers;
  DeviceBuffer final_norm;          // (hidden)
  std::unique_ptr<Matrix> lm_head;  // (vocab, hidden)
  std::vector<DeviceBuffer> rope_tables;
  int64_t bytes = 0;  // of all of it
};

// Checks that the source has every tensor of the architecture, in its shape.
// INVALID_ARGUMENT: `missing 'NAME'` or `'NAME': expected [..], got [..]`.
absl::Status CheckWeights(const Architecture& architecture,
                          const TensorSource& source);

// The weights must have been checked. `progress`: share done, in [0, 1].
absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(
    const Architecture& architecture, TensorSource& source, ComputeType type,
    Backend* backend, const std::function<void(double)>& progress);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_WEIGHTS_H_
