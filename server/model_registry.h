// Names to loaded models, with the state of each.
#ifndef QKSCOPE_SERVER_MODEL_REGISTRY_H_
#define QKSCOPE_SERVER_MODEL_REGISTRY_H_

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/model.h"
#include "server/convert.h"
#include "server/user.h"

namespace qk {

enum class ModelState { kLoading, kReady, kUnloading, kFailed };

struct ModelEntry {
  std::string name;
  ModelState state = ModelState::kLoading;
  absl::Status failure;          // why kFailed
  ModelDescription description;  // known before the weights are
  ComputeType compute = ComputeType::kF32;
  std::shared_ptr<const Model> model;  // kReady
};

// Thread-safe.
class ModelRegistry {
 public:
  void AddLoading(const std::string& name, ModelDescription description,
                  ComputeType compute);
  void SetReady(const std::string& name, std::shared_ptr<const Model> model);
  void SetFailed(const std::string& name, const absl::Status& failure);

  // Models that the user may not use are as models that there are not.

  // By name. NOT_FOUND: `model 'x' is not loaded; see ListModels`.
  absl::StatusOr<ModelEntry> Get(const std::string& name,
                                 const User& user) const;
  std::vector<ModelEntry> List(const User& user) const;  // by name
  // A model that can run. UNAVAILABLE with a time to try again when it is
  // loading.
  absl::StatusOr<ModelView> Find(const std::string& name,
                                 const User& user) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, ModelEntry> entries_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODEL_REGISTRY_H_
