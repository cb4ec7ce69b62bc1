#include "server/models/model_manager.h"

#include <algorithm>
#include <future>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "server/common/guarded.h"
#include "server/common/refusal.h"
#include "server/common/text.h"
#include "server/models/report_loaded.h"

namespace qk {
namespace {

// Pause between checks whether a retired model's memory is free.
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);

absl::Status ShuttingDown() {
  return Refused(Refusal::kDraining,
                 absl::UnavailableError("server is shutting down"));
}

// Only the end of a run counts.
class EndSink final : public IgnoringSink {
 public:
  void OnFinished(const absl::Status& status, const std::vector<ArmSummary>&,
                  const RunTimes&) override {
    end_.set_value(status);
  }
  std::future<absl::Status> end() { return end_.get_future(); }

 private:
  std::promise<absl::Status> end_;
};

}  // namespace

ModelManager::ModelManager(Parts parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<ModelManager>> ModelManager::Create(
    Parts parts) {
  std::unique_ptr<ModelManager> manager(new ModelManager(std::move(parts)));
  if (manager->parts_.admin.enabled) {
    QK_ASSIGN_OR_RETURN(manager->root_,
                        ModelRoot::Open(manager->parts_.admin.root,
                                        manager->parts_.max_descriptors));
    manager->loader_ = std::make_unique<Executor>(1);
    manager->watcher_ = std::thread([m = manager.get()] { m->Watch(); });
  }
  return manager;
}

ModelManager::~ModelManager() {
  Stop();
  loader_.reset();
  {
    MutexLock lock(&mutex_);
    ended_ = true;
  }
  changed_.NotifyAll();
  if (watcher_.joinable()) watcher_.join();
}

absl::Status ModelManager::Describe(const ModelToLoad& model) {
  QK_ASSIGN_OR_RETURN(ModelDescription description,
                      DescribeModel(model.path, model.compute, model.ignored));
  parts_.metrics->AddModel(model.name);
  parts_.registry->AddLoading(model.name, std::move(description),
                              model.compute);
  return absl::OkStatus();
}

absl::Status ModelManager::Load(const ModelToLoad& model) {
  MutexLock lock(&load_mutex_);
  auto loaded =
      GuardedValue("load", [&] { return Read(model, model.path, nullptr); });
  if (!loaded.ok()) {
    parts_.registry->SetFailed(model.name, loaded.status());
    return loaded.status();
  }
  SetReady(model.name, *loaded);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Model>> ModelManager::Read(
    const ModelToLoad& model, const std::string& path,
    std::function<void(double)> progress) {
  ModelOptions options;
  options.compute = model.compute;
  options.ignored = model.ignored;
  options.kv_cache_bytes = parts_.limits.kv_cache_bytes;
  options.max_rows_per_pass = parts_.limits.max_rows_per_pass;
  options.expected_sha256 = model.sha256;
  options.progress = std::move(progress);
  if (parts_.check_weights != WeightCheck::kAuto) {
    options.check_weights_below = parts_.check_weights == WeightCheck::kOff
                                      ? 0
                                      : std::numeric_limits<int64_t>::max();
  }
  QK_ASSIGN_OR_RETURN(std::shared_ptr<const Model> loaded,
                      Model::Load(path, options, parts_.backend));
  QK_RETURN_IF_ERROR(CheckFinite(model.name, *loaded));
  return loaded;
}

absl::Status ModelManager::CheckFinite(const std::string& name,
                                       const Model& model) const {
  const std::optional<NonFiniteWeights>& found = model.non_finite_weights();
  if (!found.has_value() || found->count == 0) return absl::OkStatus();
  if (parts_.check_weights == WeightCheck::kFail) {
    return absl::InvalidArgumentError(
        absl::StrCat(found->Text(), " (check_weights is fail)"));
  }
  parts_.log->Warn(
      "weights_not_finite",
      {{"model", name}, {"count", found->count}, {"detail", found->Text()}});
  return absl::OkStatus();
}

void ModelManager::SetReady(const std::string& name,
                            const std::shared_ptr<const Model>& model) {
  ReportLoaded(name, model, parts_.metrics, parts_.activations, parts_.log);
  parts_.registry->SetReady(name, model);
  parts_.set_health(name, true);
}

absl::Status ModelManager::CheckAllowed(const std::string& sha256) const {
  const std::vector<std::string>& allowed = parts_.admin.allowed_sha256;
  if (allowed.empty() ||
      std::find(allowed.begin(), allowed.end(), sha256) != allowed.end()) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat("sha256: the weights' SHA-256 ", sha256,
                   " is not in model_admin.allowed_sha256"));
}

absl::Status ModelManager::StartLoad(LoadRequest request) {
  if (!request.model.sha256.empty()) {
    QK_RETURN_IF_ERROR(CheckAllowed(request.model.sha256));
  }
  QK_RETURN_IF_ERROR(
      parts_.registry->BeginLoad(request.model.name, request.replace));
  request.on_progress({});
  loader_->Post([this, request = std::move(request)] {
    const auto entry = GuardedValue("load", [&] { return RunLoad(request); });
    parts_.registry->EndLoad(request.model.name);
    request.on_done(entry);
  });
  return absl::OkStatus();
}

absl::StatusOr<ModelEntry> ModelManager::RunLoad(const LoadRequest& request) {
  MutexLock lock(&load_mutex_);
  {
    MutexLock stop_lock(&mutex_);
    if (stopping_) return ShuttingDown();
  }
  const std::string& name = request.model.name;
  Progress progress;
  progress.phase = Phase::kChecking;
  request.on_progress(progress);
  QK_ASSIGN_OR_RETURN(const auto pinned, root_->Pin(request.model.path));
  QK_ASSIGN_OR_RETURN(ModelDescription description,
                      DescribeModel(pinned->path(), request.model.compute,
                                    request.model.ignored));
  QK_RETURN_IF_ERROR(
      MakeRoom(name, description.bytes_estimate, &progress.evicted));
  ModelEntry old;
  for (ModelEntry& entry : parts_.registry->All()) {
    if (entry.name == name) old = std::move(entry);
  }
  parts_.metrics->AddModel(name);
  if (old.model == nullptr) {
    parts_.registry->AddLoading(name, description, request.model.compute);
  }
  auto model = GuardedValue("load", [&] {
    return LoadPinned(request, pinned->path(), description, progress);
  });
  if (!model.ok()) {
    if (old.model == nullptr) {
      parts_.registry->SetFailed(name, model.status());
    }
    return model.status();
  }
  SetReady(name, *model);
  if (old.model != nullptr) Retire({name, old.model, old.bytes, false, {}});
  ModelEntry entry;
  for (ModelEntry& loaded : parts_.registry->All()) {
    if (loaded.name == name) entry = std::move(loaded);
  }
  return entry;
}

absl::StatusOr<std::shared_ptr<const Model>> ModelManager::LoadPinned(
    const LoadRequest& request, const std::string& path,
    const ModelDescription& description, const Progress& checked) {
  Progress progress = checked;
  progress.phase = Phase::kReading;
  progress.bytes_total = description.file_bytes;
  request.on_progress(progress);
  const auto on_share = [&](double share) {
    progress.bytes_read =
        static_cast<int64_t>(share * static_cast<double>(progress.bytes_total));
    request.on_progress(progress);
  };
  QK_ASSIGN_OR_RETURN(auto model, Read(request.model, path, on_share));
  QK_RETURN_IF_ERROR(CheckAllowed(model->weights_sha256()));
  progress.phase = Phase::kWarmingUp;
  progress.bytes_read = progress.bytes_total;
  request.on_progress(progress);
  QK_RETURN_IF_ERROR(WarmUp(request, model));
  return model;
}

absl::Status ModelManager::WarmUp(const LoadRequest& request,
                                  const std::shared_ptr<const Model>& model) {
  RunSpec spec;
  spec.tokens = {model->config().vision.image_token == 0 ? 1 : 0};
  spec.arms.resize(1);
  spec.arms[0].model = model;
  spec.capture.off = true;
  spec.logits.emplace();
  spec.logits->top_n = 1;
  spec.logits->positions = {0};
  auto sink = std::make_shared<EndSink>();
  std::future<absl::Status> end = sink->end();
  ScheduledRun run;
  run.prefill_rows = 1;
  run.keep_alive = sink;
  QK_ASSIGN_OR_RETURN(run.run, Run::Create(std::move(spec), sink.get()));
  RequestInfo info;
  info.id = request.id;
  info.method = "LoadModel";
  info.model = request.model.name;
  info.user = request.user;
  info.arms = 1;
  info.prompt_tokens = 1;
  const auto scheduled = std::make_shared<ScheduledRequest>(
      std::move(info), absl::InfiniteFuture(), [](int) {});
  std::vector<ScheduledRun> runs;
  runs.push_back(std::move(run));
  QK_RETURN_IF_ERROR(parts_.scheduler->Submit(scheduled, std::move(runs)));
  return end.get();
}

ModelManager::Room ModelManager::RoomOfAll() const {
  const int64_t limit = parts_.admin.max_bytes;
  const int64_t device = parts_.backend->info().memory_bytes;
  if (device > 0 && (limit <= 0 || device < limit)) {
    return {device, "the device's"};
  }
  return {limit, "max_bytes"};
}

absl::Status ModelManager::MakeRoom(const std::string& name, int64_t bytes,
                                    std::vector<std::string>* evicted) {
  const ModelAdminOptions& admin = parts_.admin;
  const Room room = RoomOfAll();
  for (;;) {
    int count = 1;
    int64_t used = RetiredBytes();
    std::vector<std::string> others;
    for (const ModelEntry& entry : parts_.registry->All()) {
      if (entry.state != ModelState::kUnloading) used += entry.bytes;
      if (entry.name == name || entry.state == ModelState::kFailed) continue;
      ++count;
      if (entry.state != ModelState::kReady) continue;
      others.push_back(absl::StrCat("'", entry.name, "' (",
                                    HumanBytes(entry.bytes),
                                    entry.idle ? ", idle)" : ", in use)"));
    }
    std::string problem;
    if (admin.max_models > 0 && count > admin.max_models) {
      problem = absl::StrCat("max_models is ", admin.max_models);
    } else if (room.bytes > 0 && bytes > room.bytes - used) {
      problem = absl::StrCat(
          "the model needs about ", HumanBytes(bytes), "; ", HumanBytes(used),
          " of ", room.name, " ", HumanBytes(room.bytes),
          " are taken: ", HumanBytes(bytes - (room.bytes - used)),
          " are missing");
    }
    if (problem.empty()) return absl::OkStatus();
    std::string victim;
    std::shared_ptr<const Model> model;
    if (admin.eviction == ModelAdminOptions::Eviction::kLru) {
      model = parts_.registry->TakeIdle(&victim);
    }
    if (model == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(
          problem, others.empty()
                       ? "; there is no model to unload"
                       : "; unload one of: " + absl::StrJoin(others, ", ")));
    }
    parts_.set_health(victim, false);
    parts_.metrics->ModelUnloaded(victim);
    parts_.activations->ModelUnloaded(victim);
    parts_.log->Info("model_unloaded", {{"model", victim}, {"for", name}});
    evicted->push_back(victim);
  }
}

absl::Status ModelManager::StartUnload(
    const std::string& name, std::function<void(const absl::Status&)> on_done) {
  QK_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model,
                      parts_.registry->BeginUnload(name));
  parts_.set_health(name, false);
  parts_.metrics->ModelUnloaded(name);
  parts_.activations->ModelUnloaded(name);
  if (model == nullptr) {
    on_done(absl::OkStatus());
    return absl::OkStatus();
  }
  parts_.log->Info("model_unloading", {{"model", name}});
  Retire({name, model, model->bytes(), true, std::move(on_done)});
  return absl::OkStatus();
}

void ModelManager::Retire(Retired retired) {
  std::function<void(const absl::Status&)> refused;
  {
    MutexLock lock(&mutex_);
    if (stopping_) std::swap(refused, retired.on_done);
    retired_.push_back(std::move(retired));
  }
  changed_.NotifyAll();
  if (refused != nullptr) refused(ShuttingDown());
}

int64_t ModelManager::RetiredBytes() {
  MutexLock lock(&mutex_);
  int64_t bytes = 0;
  for (const Retired& retired : retired_) {
    if (!retired.model.expired()) bytes += retired.bytes;
  }
  return bytes;
}

void ModelManager::Stop() {
  std::vector<Retired> waited;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (Retired& retired : retired_) {
      if (retired.on_done == nullptr) continue;
      waited.push_back(retired);
      retired.on_done = nullptr;
    }
  }
  for (const Retired& retired : waited) retired.on_done(ShuttingDown());
}

std::vector<ModelManager::Retired> ModelManager::TakeFreed(bool* ended) {
  MutexLock lock(&mutex_);
  const size_t known = retired_.size();
  const auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ended_ || retired_.size() != known;
  };
  if (known == 0) {
    changed_.Wait(&mutex_, changed);
  } else {
    changed_.WaitFor(&mutex_, kPollInterval, changed);
  }
  *ended = ended_;
  const auto gone = std::partition(
      retired_.begin(), retired_.end(),
      [](const Retired& retired) { return !retired.model.expired(); });
  std::vector<Retired> freed(gone, retired_.end());
  retired_.erase(gone, retired_.end());
  return freed;
}

void ModelManager::Watch() {
  for (bool ended = false; !ended;) {
    for (const Retired& retired : TakeFreed(&ended)) {
      if (retired.unloading) {
        parts_.registry->EndUnload(retired.name);
        parts_.log->Info("model_unloaded", {{"model", retired.name}});
      }
      if (retired.on_done != nullptr) retired.on_done(absl::OkStatus());
    }
  }
}

}  // namespace qk
