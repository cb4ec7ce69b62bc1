// Loads, replaces and unloads models, and makes room for them.
#ifndef QKSCOPE_SERVER_MODELS_MODEL_MANAGER_H_
#define QKSCOPE_SERVER_MODELS_MODEL_MANAGER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "engine/model/model.h"
#include "server/common/executor.h"
#include "server/common/limits.h"
#include "server/common/log.h"
#include "server/models/model_options.h"
#include "server/models/model_registry.h"
#include "server/models/model_root.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/metrics.h"
#include "server/schedule/scheduler.h"

namespace qk {

// Thread-safe.
class ModelManager {
 public:
  // All must outlive the manager. `set_health` reports whether a model serves.
  struct Parts {
    Limits limits;
    ModelAdminOptions admin;
    // Descriptors for the files of a model that LoadModel loads.
    int max_descriptors = 0;
    WeightCheck check_weights = WeightCheck::kAuto;
    Backend* backend = nullptr;
    ModelRegistry* registry = nullptr;
    Scheduler* scheduler = nullptr;
    Metrics* metrics = nullptr;
    ActivationMetrics* activations = nullptr;
    Log* log = nullptr;
    std::function<void(const std::string& name, bool serving)> set_health;
  };
  // Fails if model_admin.root cannot be opened.
  static absl::StatusOr<std::unique_ptr<ModelManager>> Create(Parts parts);
  // Waits for the load in progress.
  ~ModelManager();

  bool admin_enabled() const { return parts_.admin.enabled; }

  // For the configured models: call Describe for all, then Load for each.
  absl::Status Describe(const ModelToLoad& model);
  absl::Status Load(const ModelToLoad& model);

  enum class Phase { kWaiting, kChecking, kReading, kWarmingUp };
  struct Progress {
    Phase phase = Phase::kWaiting;
    int64_t bytes_read = 0;
    int64_t bytes_total = 0;
    std::vector<std::string> evicted;
  };
  struct LoadRequest {
    ModelToLoad model;  // with a path relative to the root
    bool replace = false;
    std::string id;                    // of the call
    std::shared_ptr<const User> user;  // is charged for the first pass
    // Both are called on the manager's thread, except for the first progress.
    // `on_done` is called once, last.
    std::function<void(const Progress&)> on_progress;
    std::function<void(const absl::StatusOr<ModelEntry>&)> on_done;
  };
  // Returns the errors that are known at once; `on_done` reports all others.
  absl::Status StartLoad(LoadRequest request);

  // Hides the model from new requests. After OK, `on_done` is called once, when
  // the model's memory is free.
  absl::Status StartUnload(const std::string& name,
                           std::function<void(const absl::Status&)> on_done);

  // Refuses loads that have not begun, and ends the wait for unloads.
  void Stop();

 private:
  // A model that was unloaded or replaced and whose memory is still in use.
  struct Retired {
    std::string name;
    std::weak_ptr<const Model> model;
    int64_t bytes = 0;
    bool unloading = false;  // the registry lists it as unloading
    std::function<void(const absl::Status&)> on_done;
  };

  explicit ModelManager(Parts parts);

  absl::StatusOr<ModelEntry> RunLoad(const LoadRequest& request);
  absl::StatusOr<std::shared_ptr<const Model>> LoadPinned(
      const LoadRequest& request, const std::string& path,
      const ModelDescription& description, const Progress& progress);
  absl::StatusOr<std::shared_ptr<const Model>> Read(
      const ModelToLoad& model, const std::string& path,
      std::function<void(double)> progress);
  // Warns of weights that are not finite, or fails.
  absl::Status CheckFinite(const std::string& name, const Model& model) const;
  absl::Status CheckAllowed(const std::string& sha256) const;
  // What all models may take, and what that is called; 0: no limit.
  struct Room {
    int64_t bytes;
    const char* name;
  };
  Room RoomOfAll() const;
  // Makes room for a model of that name and size: evicts others if allowed, or
  // fails and names the models that could be unloaded.
  absl::Status MakeRoom(const std::string& name, int64_t bytes,
                        std::vector<std::string>* evicted);
  absl::Status WarmUp(const LoadRequest& request,
                      const std::shared_ptr<const Model>& model);
  void SetReady(const std::string& name,
                const std::shared_ptr<const Model>& model);
  void Retire(Retired retired);
  int64_t RetiredBytes() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits for retired models; those whose memory is free leave `retired_`.
  // `*ended`: no more waits.
  std::vector<Retired> TakeFreed(bool* ended) ABSL_LOCKS_EXCLUDED(mutex_);
  void Watch();

  const Parts parts_;
  std::unique_ptr<ModelRoot> root_;
  // One load at a time.
  Mutex load_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::vector<Retired> retired_ ABSL_GUARDED_BY(mutex_);
  // Loads are refused, and nobody waits for unloads.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // the watcher stops

  std::thread watcher_;
  std::unique_ptr<Executor> loader_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_MANAGER_H_
