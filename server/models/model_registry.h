// Maps names to models, with the state of each.
#ifndef QKSCOPE_SERVER_MODELS_MODEL_REGISTRY_H_
#define QKSCOPE_SERVER_MODELS_MODEL_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "engine/model/model.h"
#include "server/common/user.h"
#include "server/convert/convert.h"

namespace qk {

enum class ModelState { kLoading, kReady, kUnloading, kFailed };

struct ModelEntry {
  std::string name;
  ModelState state = ModelState::kLoading;
  absl::Status failure;          // why kFailed
  ModelDescription description;  // known before the weights are read
  ComputeType compute = ComputeType::kF32;
  std::shared_ptr<const Model> model;  // kReady
  int64_t bytes = 0;                   // Model::bytes; 0 until it is loaded
  uint64_t last_used = 0;              // count of finds at the last find
  // Only the registry holds the model. Set in the results of List and All.
  bool idle = false;
};

// Thread-safe.
class ModelRegistry {
 public:
  void AddLoading(const std::string& name, ModelDescription description,
                  ComputeType compute);
  void SetReady(const std::string& name, std::shared_ptr<const Model> model);
  void SetFailed(const std::string& name, const absl::Status& failure);

  // Mark the beginning and the end of a load, whatever is served under the name
  // meanwhile. Errors: ALREADY_EXISTS, FAILED_PRECONDITION.
  absl::Status BeginLoad(const std::string& name, bool replace);
  void EndLoad(const std::string& name);
  // Hides the model from new requests and returns the registry's reference. If
  // the model had failed to load, removes its entry and returns nullptr.
  // Errors: NOT_FOUND, FAILED_PRECONDITION.
  absl::StatusOr<std::shared_ptr<const Model>> BeginUnload(
      const std::string& name);
  // Removes the entry. Call it after BeginUnload, once the memory is free.
  void EndUnload(const std::string& name);
  // Removes the least recently used idle model and returns it; nullptr if there
  // is none.
  std::shared_ptr<const Model> TakeIdle(std::string* name);
  // All models, whatever their state and whoever may use them.
  std::vector<ModelEntry> All() const;

  // The functions below treat a model that the user may not use as if it did
  // not exist.

  // NOT_FOUND: `model 'x' is not loaded; see ListModels`.
  absl::StatusOr<ModelEntry> Get(const std::string& name,
                                 const User& user) const;
  std::vector<ModelEntry> List(const User& user) const;  // sorted by name
  // Finds a model that is ready. UNAVAILABLE, with a retry delay, if it is
  // loading or unloading; FAILED_PRECONDITION if it failed to load.
  absl::StatusOr<ModelView> Find(const std::string& name,
                                 const User& user) const;

 private:
  std::vector<ModelEntry> ListIf(
      const std::function<bool(const std::string&)>& wanted) const;

  mutable Mutex mutex_;
  mutable std::map<std::string, ModelEntry> entries_ ABSL_GUARDED_BY(mutex_);
  mutable uint64_t finds_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<std::string> loading_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_REGISTRY_H_
