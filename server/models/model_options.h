// The options that say which models the server has.
#ifndef QKSCOPE_SERVER_MODELS_MODEL_OPTIONS_H_
#define QKSCOPE_SERVER_MODELS_MODEL_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/types/compute_type.h"

namespace qk {

// What happens if a model's weights are NaN or infinite.
enum class WeightCheck {
  kAuto,  // as kWarn if the model's files have less than 2 GiB, else as kOff
  kOff,   // nobody looks
  kWarn,  // the log and ModelInfo say so
  kFail,  // the model is not loaded
};

struct ModelToLoad {
  std::string name;
  std::string path;
  ComputeType compute = ComputeType::kF32;
  std::string sha256;  // expected; empty: any
  IgnoredParts ignored = {};
};

// Reads what a message of the API or of the configuration says.
template <typename Message>
IgnoredParts IgnoredPartsOf(const Message& in) {
  return {{in.ignore().begin(), in.ignore().end()},
          {in.ignore_tensors().begin(), in.ignore_tensors().end()}};
}

// Options of the ModelAdmin service.
struct ModelAdminOptions {
  enum class Eviction { kNever, kLru, kManual };

  bool enabled = false;
  std::string root;
  std::vector<std::string> allowed_sha256;  // lower case; empty: any
  Eviction eviction = Eviction::kNever;
  int max_models = 0;     // 0: no limit
  int64_t max_bytes = 0;  // 0: no limit
};

// Reads every model's files, and the weights of those whose sha256 is given.
// Returns a status per model that could not be served, `model 'NAME': problem`.
// `kv_cache_bytes` is the size of each model's KV cache.
std::vector<absl::Status> CheckModelFiles(
    const std::vector<ModelToLoad>& models, const ModelAdminOptions& admin,
    int64_t kv_cache_bytes);

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_OPTIONS_H_
