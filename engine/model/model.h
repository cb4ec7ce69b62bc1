// A loaded model: configuration, packed weights, tokenizer and KV page pool on
// one backend.
#ifndef QKSCOPE_ENGINE_MODEL_MODEL_H_
#define QKSCOPE_ENGINE_MODEL_MODEL_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/model/matmul_groups.h"
#include "engine/model/non_finite_weights.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/types/model_config.h"

namespace qk {

class PagePool;
class Workspace;
struct OpenModel;
struct Weights;

// What an operator wants to be passed over in a model's files.
struct IgnoredParts {
  // Members of config.json ("a.b" lies in "a"), or keys of a GGUF file's
  // metadata. The model is read as if they were missing.
  std::vector<std::string> fields;
  // Names of tensors that the model does not use, or patterns: `*` stands for
  // any characters.
  std::vector<std::string> tensors;
};

struct ModelOptions {
  ComputeType compute = ComputeType::kF32;
  IgnoredParts ignored;
  int64_t kv_cache_bytes = int64_t{1} << 30;
  // The largest number of rows of one pass; it determines the scratch memory.
  int max_rows_per_pass = 4096;
  // If not empty, compared with the weights' digest; DATA_LOSS if it differs.
  std::string expected_sha256;
  // The weights are looked at for NaN and infinities if the model's files have
  // fewer bytes than this; 0: never. See Model::non_finite_weights.
  int64_t check_weights_below = int64_t{2} << 30;
  // Called on the loading thread with the share that is done, in [0, 1].
  std::function<void(double)> progress;
};

// What a model's files say, without its weights.
struct ModelDescription {
  ModelConfig config;
  std::string weights_dtype;  // e.g. "Q4_1,Q8_0,F32", most bytes first
  int64_t file_bytes = 0;
  int64_t parameters = 0;
  int64_t bytes_estimate = 0;  // of memory, after loading
  int64_t kv_page_bytes = 0;   // of a page of the KV cache (PagePool)
  // Why the model takes no text and gives none, only token ids; empty if it
  // does.
  std::string text_problem;
  IgnoredParts ignored;
  // What a user of the model should know, a sentence each.
  std::vector<std::string> warnings;
};

// Checks everything about a model that can be checked without reading its
// weights: formats, configuration, names, shapes, tokenizer. `path` is a .gguf
// file, a .safetensors file beside its config.json, or a folder.
//
// A tokenizer that is not understood is no error: see text_problem. A part of
// `ignored` that the files do not have is INVALID_ARGUMENT.
absl::StatusOr<ModelDescription> DescribeModel(
    const std::string& path, ComputeType compute,
    const IgnoredParts& ignored = {});

// Reads the weights and returns their SHA-256, as Model::weights_sha256.
absl::StatusOr<std::string> WeightsSha256(const std::string& path,
                                          const IgnoredParts& ignored = {});

// A pass keeps its model alive (shared_from_this), because its runs may end
// before it does.
class Model : public std::enable_shared_from_this<Model> {
 public:
  // INVALID_ARGUMENT: bad content (`file: reason`). UNIMPLEMENTED names a
  // feature of the model that the engine does not have. NOT_FOUND,
  // PERMISSION_DENIED, DATA_LOSS (checksum), RESOURCE_EXHAUSTED (size).
  // `backend` must outlive the model.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& path, const ModelOptions& options, Backend* backend);
  // The same for files that are open (engine/model/open_model.h), or for
  // weights that come from elsewhere. `name` stands in errors.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(
      OpenModel open, const std::string& name, const ModelOptions& options,
      Backend* backend);
  ~Model();

  const ModelConfig& config() const { return description_.config; }
  const ModelDescription& description() const { return description_; }
  // nullptr if the model takes no text (ModelDescription::text_problem).
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  ComputeType compute() const { return compute_; }
  Backend* backend() const { return backend_; }
  const std::string& weights_sha256() const { return weights_sha256_; }
  // Of the weights and of scratch memory, wherever they are.
  int64_t bytes() const { return std::max(host_bytes_, device_bytes_); }
  // In the host's memory.
  int64_t host_bytes() const { return host_bytes_; }
  // In the device's own memory or, if it works in the host's, of the weights.
  int64_t device_bytes() const { return device_bytes_; }
  double load_seconds() const { return load_seconds_; }
  // Absent if the weights were not looked at.
  const std::optional<NonFiniteWeights>& non_finite_weights() const {
    return non_finite_weights_;
  }
  const Weights& weights() const { return *weights_; }
  // What multiplies its matrices.
  const std::vector<MatMulGroup>& matmuls() const;
  // The distinct RoPEs of the layers, and the index of each layer's own; -1:
  // none.
  const std::vector<RopeConfig>& ropes() const { return ropes_; }
  int rope_of_layer(int layer) const { return rope_of_layer_[layer]; }
  PagePool& pages() const { return *pages_; }
  // Only the device's scheduler thread uses this.
  Workspace& workspace() const { return *workspace_; }
  int max_rows_per_pass() const { return max_rows_per_pass_; }

 private:
  Model();
  static absl::StatusOr<std::shared_ptr<const Model>> Read(
      OpenModel open, const std::string& name, const ModelOptions& options,
      Backend* backend, std::chrono::steady_clock::time_point start);
  void FindRopes();

  ModelDescription description_;
  ComputeType compute_ = ComputeType::kF32;
  Backend* backend_ = nullptr;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Weights> weights_;
  std::vector<RopeConfig> ropes_;
  std::vector<int> rope_of_layer_;
  std::unique_ptr<PagePool> pages_;
  std::unique_ptr<Workspace> workspace_;
  std::string weights_sha256_;
  int64_t host_bytes_ = 0;
  int64_t device_bytes_ = 0;
  double load_seconds_ = 0;
  std::optional<NonFiniteWeights> non_finite_weights_;
  int max_rows_per_pass_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_MODEL_H_
