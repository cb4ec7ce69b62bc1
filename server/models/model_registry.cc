#include "server/models/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/access/users.h"
#include "server/common/refusal.h"
#include "server/common/retry_after.h"
#include "server/common/text.h"

namespace qk {
namespace {

constexpr absl::Duration kLoadingRetry = absl::Seconds(2);

absl::Status NotReady(const std::string& name, absl::string_view state) {
  return Refused(
      Refusal::kModelState,
      WithRetryAfter(absl::UnavailableError(absl::StrCat(
                         "model '", name, "' is ", state, " (retry in ",
                         absl::ToInt64Seconds(kLoadingRetry), " s)")),
                     kLoadingRetry));
}

// Needs the registry's lock, because references are only copied under it.
bool IsIdle(const ModelEntry& entry) {
  return entry.state == ModelState::kReady && entry.model.use_count() == 1;
}

}  // namespace

void ModelRegistry::AddLoading(const std::string& name,
                               ModelDescription description,
                               ComputeType compute) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = entries_[name];
  entry.name = name;
  entry.state = ModelState::kLoading;
  entry.failure = absl::OkStatus();
  entry.description = std::move(description);
  entry.compute = compute;
}

void ModelRegistry::SetReady(const std::string& name,
                             std::shared_ptr<const Model> model) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = entries_[name];
  entry.state = ModelState::kReady;
  entry.failure = absl::OkStatus();
  entry.description = model->description();
  entry.compute = model->compute();
  entry.bytes = model->bytes();
  entry.last_used = ++finds_;
  // A replaced model may be freed here, so it is released after the lock.
  std::swap(entry.model, model);
}

void ModelRegistry::SetFailed(const std::string& name,
                              const absl::Status& failure) {
  MutexLock lock(&mutex_);
  ModelEntry& entry = entries_[name];
  entry.state = ModelState::kFailed;
  entry.failure = failure;
}

absl::StatusOr<ModelEntry> ModelRegistry::Get(const std::string& name,
                                              const User& user) const {
  MutexLock lock(&mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end() || !MayUseModel(user, name)) {
    return absl::NotFoundError(
        absl::StrCat("model '", Echo(name), "' is not loaded; see ListModels"));
  }
  return it->second;
}

std::vector<ModelEntry> ModelRegistry::ListIf(
    const std::function<bool(const std::string&)>& wanted) const {
  MutexLock lock(&mutex_);
  std::vector<ModelEntry> out;
  for (const auto& [name, entry] : entries_) {
    if (!wanted(name)) continue;
    const bool idle = IsIdle(entry);
    out.push_back(entry);
    out.back().idle = idle;
  }
  return out;
}

std::vector<ModelEntry> ModelRegistry::List(const User& user) const {
  return ListIf(
      [&](const std::string& name) { return MayUseModel(user, name); });
}

std::vector<ModelEntry> ModelRegistry::All() const {
  return ListIf([](const std::string&) { return true; });
}

absl::Status ModelRegistry::BeginLoad(const std::string& name, bool replace) {
  MutexLock lock(&mutex_);
  const auto it = entries_.find(name);
  const bool known = it != entries_.end();
  if (loading_.contains(name) ||
      (known && it->second.state == ModelState::kLoading)) {
    return absl::AlreadyExistsError(
        absl::StrCat("model '", name, "' is loading"));
  }
  if (known && it->second.state == ModelState::kUnloading) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", name, "' is unloading"));
  }
  if (known && it->second.state == ModelState::kReady && !replace) {
    return absl::AlreadyExistsError(absl::StrCat(
        "model '", name, "' is already loaded; set replace to replace it"));
  }
  loading_.insert(name);
  return absl::OkStatus();
}

void ModelRegistry::EndLoad(const std::string& name) {
  MutexLock lock(&mutex_);
  loading_.erase(name);
}

absl::StatusOr<std::shared_ptr<const Model>> ModelRegistry::BeginUnload(
    const std::string& name) {
  MutexLock lock(&mutex_);
  const auto it = entries_.find(name);
  if (loading_.contains(name) ||
      (it != entries_.end() && it->second.state == ModelState::kLoading)) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", name, "' is loading"));
  }
  if (it == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("model '", Echo(name), "' is not loaded; see ListModels"));
  }
  ModelEntry& entry = it->second;
  if (entry.state == ModelState::kUnloading) {
    return absl::FailedPreconditionError(
        absl::StrCat("model '", name, "' is unloading"));
  }
  std::shared_ptr<const Model> model = std::move(entry.model);
  entry.model = nullptr;
  entry.state = ModelState::kUnloading;
  if (model == nullptr) entries_.erase(it);
  return model;
}

void ModelRegistry::EndUnload(const std::string& name) {
  MutexLock lock(&mutex_);
  entries_.erase(name);
}

std::shared_ptr<const Model> ModelRegistry::TakeIdle(std::string* name) {
  MutexLock lock(&mutex_);
  auto oldest = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (!IsIdle(it->second) || loading_.contains(it->first)) continue;
    if (oldest == entries_.end() ||
        it->second.last_used < oldest->second.last_used) {
      oldest = it;
    }
  }
  if (oldest == entries_.end()) return nullptr;
  *name = oldest->first;
  std::shared_ptr<const Model> model = std::move(oldest->second.model);
  entries_.erase(oldest);
  return model;
}

absl::StatusOr<ModelView> ModelRegistry::Find(const std::string& name,
                                              const User& user) const {
  auto entry = Get(name, user);
  if (!entry.ok()) return entry.status();
  {
    MutexLock lock(&mutex_);
    if (const auto it = entries_.find(name); it != entries_.end()) {
      it->second.last_used = ++finds_;
    }
  }
  switch (entry->state) {
    case ModelState::kLoading:
      return NotReady(name, "loading");
    case ModelState::kUnloading:
      return NotReady(name, "unloading");
    case ModelState::kFailed:
      return absl::FailedPreconditionError(
          absl::StrCat("model '", name, "' failed to load; see GetModel"));
    case ModelState::kReady:
      break;
  }
  ModelView view;
  view.name = name;
  view.config = &entry->model->config();
  view.tokenizer = entry->model->tokenizer();
  view.text_problem = entry->model->description().text_problem;
  view.model = std::move(entry->model);
  return view;
}

}  // namespace qk
