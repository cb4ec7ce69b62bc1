// Names to loaded models, with the state of each.
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
  ModelDescription description;  // known before the weights are
  ComputeType compute = ComputeType::kF32;
  std::shared_ptr<const Model> model;  // kReady
  int64_t bytes = 0;                   // host_bytes; 0 until it is loaded
  uint64_t used = 0;                   // when it was last found, in finds
  // Nobody but the registry has the model. (In what List and Loaded give.)
  bool idle = false;
};

// Thread-safe.
class ModelRegistry {
 public:
  void AddLoading(const std::string& name, ModelDescription description,
                  ComputeType compute);
  void SetReady(const std::string& name, std::shared_ptr<const Model> model);
  void SetFailed(const std::string& name, const absl::Status& failure);

  // Between these two the name is being loaded, whatever is served under it.
  // ALREADY_EXISTS, FAILED_PRECONDITION.
  absl::Status BeginLoad(const std::string& name, bool replace);
  void EndLoad(const std::string& name);
  // No new request finds it. Gives the registry's share of the model; nullptr:
  // it had failed, and is forgotten. NOT_FOUND, FAILED_PRECONDITION.
  absl::StatusOr<std::shared_ptr<const Model>> BeginUnload(
      const std::string& name);
  // After BeginUnload, once the memory is free.
  void EndUnload(const std::string& name);
  // Takes the idle model that was used longest ago; nullptr: there is none.
  std::shared_ptr<const Model> TakeIdle(std::string* name);
  // All models, for everybody.
  std::vector<ModelEntry> Loaded() const;

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
  std::vector<ModelEntry> ListIf(
      const std::function<bool(const std::string&)>& wanted) const;

  mutable Mutex mutex_;
  mutable std::map<std::string, ModelEntry> entries_ ABSL_GUARDED_BY(mutex_);
  mutable uint64_t finds_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<std::string> loading_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_REGISTRY_H_
