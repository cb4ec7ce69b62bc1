#include "tests/engine/random_model.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/architectures/architecture.h"
#include "engine/base/check.h"
#include "engine/base/half.h"
#include "engine/model/open_model.h"
#include "tests/engine/formats/listed_source.h"

namespace qk::testing {
namespace {

// Tensors whose data all lie in one piece of memory, each from another place
// on, so that a large model takes little of the host.
class RandomSource final : public ListedSource {
 public:
  explicit RandomSource(const Architecture& architecture) {
    std::map<std::string, std::vector<int64_t>> shapes;
    int64_t most = 0;
    for (const WeightRef* ref : AllWeights(architecture)) {
      if (ref->name.empty()) continue;
      shapes.emplace(ref->name, ref->shape);
      most = std::max(most, Elements(ref->shape));
    }
    const auto places = static_cast<int64_t>(shapes.size()) * kPlace;
    Fill(most + places);
    for (const auto& [name, shape] : shapes) {
      const auto at = static_cast<int64_t>(tensors_.size()) * kPlace;
      const auto* data = reinterpret_cast<const uint8_t*>(&values_[at]);
      const auto bytes = static_cast<size_t>(2 * Elements(shape));
      tensors_.push_back({name, DType::kBF16, shape, {data, bytes}});
      bytes_ += static_cast<int64_t>(bytes);
    }
  }

  std::string Sha256Hex() const override { return std::string(64, '0'); }
  int64_t file_bytes() const override { return bytes_; }

 private:
  static constexpr int64_t kPlace = 4099;  // elements between two tensors

  static int64_t Elements(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (int64_t dim : shape) n *= dim;
    return n;
  }

  void Fill(int64_t n) {
    values_.resize(n);
    uint32_t state = 1;
    for (uint16_t& value : values_) {
      state ^= state << 13;
      state ^= state >> 17;
      state ^= state << 5;
      value = RoundToBF16(static_cast<float>(static_cast<int32_t>(state)) /
                          (32.0f * 2147483648.0f));
    }
  }

  std::vector<uint16_t> values_;
  int64_t bytes_ = 0;
};

std::string ConfigOf(const LlamaShape& shape) {
  return absl::StrCat(
      R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",)",
      R"( "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0,)",
      R"( "max_position_embeddings": 8192, "hidden_size": )", shape.hidden,
      R"(, "intermediate_size": )", shape.intermediate,
      R"(, "num_hidden_layers": )", shape.layers,
      R"(, "num_attention_heads": )", shape.heads,
      R"(, "num_key_value_heads": )", shape.kv_heads, R"(, "vocab_size": )",
      shape.vocab, R"(, "tie_word_embeddings": )",
      shape.tied ? "true" : "false", "}");
}

}  // namespace

const std::vector<LlamaShape>& RealShapes() {
  static const auto& shapes = *new std::vector<LlamaShape>{
      {"SmolLM2-135M", 30, 576, 1536, 9, 3, 49152, true},
      {"Llama-1B", 16, 2048, 8192, 32, 8, 128256, true},
      {"Llama-7B", 32, 4096, 11008, 32, 32, 32000, false},
      {"Llama-8B", 32, 4096, 14336, 32, 8, 128256, false}};
  return shapes;
}

LlamaShape TinyShape() { return {"tiny", 2, 64, 160, 4, 2, 97, false}; }

std::vector<MatrixShape> MatricesOf(const std::vector<LlamaShape>& shapes) {
  std::set<MatrixShape> all;
  for (const LlamaShape& s : shapes) {
    all.insert({{s.hidden, s.hidden},
                {s.kv_size(), s.hidden},
                {s.intermediate, s.hidden},
                {s.hidden, s.intermediate},
                {s.vocab, s.hidden}});
  }
  return {all.begin(), all.end()};
}

absl::StatusOr<std::shared_ptr<const Model>> RandomModel(
    const LlamaShape& shape, const ModelOptions& options, Backend* backend) {
  QK_ASSIGN_OR_RETURN(const JsonDocument config,
                      JsonDocument::Parse("config", ConfigOf(shape), {}));
  OpenModel open;
  QK_ASSIGN_OR_RETURN(open.architecture, ArchitectureFromConfig(config.root()));
  open.source = std::make_unique<RandomSource>(open.architecture);
  open.text_problem = "the model is random";
  return Model::Load(std::move(open), shape.name, options, backend);
}

}  // namespace qk::testing
