// Models of a real size without files: their weights are random.
#ifndef QKSCOPE_TESTS_ENGINE_RANDOM_MODEL_H_
#define QKSCOPE_TESTS_ENGINE_RANDOM_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"

namespace qk::testing {

// The sizes of a Llama.
struct LlamaShape {
  std::string name;
  int layers = 0;
  int hidden = 0;
  int intermediate = 0;
  int heads = 0;
  int kv_heads = 0;
  int vocab = 0;
  bool tied = false;  // lm_head is the embedding

  int head_dim() const { return hidden / heads; }
  int kv_size() const { return kv_heads * head_dim(); }
};

// One weight's sizes.
struct MatrixShape {
  int out_features = 0;
  int in = 0;

  auto operator<=>(const MatrixShape&) const = default;
};

// SmolLM2-135M, Llama-1B (3.2), Llama-7B (2) and Llama-8B (3.1).
const std::vector<LlamaShape>& RealShapes();
// One that an emulation computes in no time.
LlamaShape TinyShape();
// The different matrices of the shapes, lm_head included, by size.
std::vector<MatrixShape> MatricesOf(const std::vector<LlamaShape>& shapes);

// A model of the shape without a tokenizer. Its weights are bf16 between -1/32
// and 1/32, the same in every process.
absl::StatusOr<std::shared_ptr<const Model>> RandomModel(
    const LlamaShape& shape, const ModelOptions& options, Backend* backend);

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_RANDOM_MODEL_H_
