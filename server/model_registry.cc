#include "server/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/grpc_status.h"
#include "server/refusal.h"
#include "server/text.h"
#include "server/users.h"

namespace qk {
namespace {

constexpr absl::Duration kLoadingRetry = absl::Seconds(2);

absl::Status Changing(const std::string& name, absl::string_view what) {
  return Refused(
      Refusal::kModelState,
      WithRetryAfter(absl::UnavailableError(absl::StrCat(
                         "model '", name, "' is ", what, " (retry in ",
                         absl::ToInt64Seconds(kLoadingRetry), " s)")),
                     kLoadingRetry));
}

}  // namespace

void ModelRegistry::AddLoading(const std::string& name,
                               ModelDescription description,
                               ComputeType compute) {
  std::lock_guard<std::mutex> lock(mutex_);
  ModelEntry& entry = entries_[name];
  entry.name = name;
  entry.state = ModelState::kLoading;
  entry.description = std::move(description);
  entry.compute = compute;
}

void ModelRegistry::SetReady(const std::string& name,
                             std::shared_ptr<const Model> model) {
  std::lock_guard<std::mutex> lock(mutex_);
  ModelEntry& entry = entries_[name];
  entry.state = ModelState::kReady;
  entry.description = model->description();
  entry.model = std::move(model);
}

void ModelRegistry::SetFailed(const std::string& name,
                              const absl::Status& failure) {
  std::lock_guard<std::mutex> lock(mutex_);
  ModelEntry& entry = entries_[name];
  entry.state = ModelState::kFailed;
  entry.failure = failure;
}

absl::StatusOr<ModelEntry> ModelRegistry::Get(const std::string& name,
                                              const User& user) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end() || !MayUseModel(user, name)) {
    return absl::NotFoundError(
        absl::StrCat("model '", Echo(name), "' is not loaded; see ListModels"));
  }
  return it->second;
}

std::vector<ModelEntry> ModelRegistry::List(const User& user) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<ModelEntry> out;
  for (const auto& [name, entry] : entries_) {
    if (MayUseModel(user, name)) out.push_back(entry);
  }
  return out;
}

absl::StatusOr<ModelView> ModelRegistry::Find(const std::string& name,
                                              const User& user) const {
  auto entry = Get(name, user);
  if (!entry.ok()) return entry.status();
  switch (entry->state) {
    case ModelState::kLoading:
      return Changing(name, "loading");
    case ModelState::kUnloading:
      return Changing(name, "unloading");
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
  view.model = std::move(entry->model);
  return view;
}

}  // namespace qk
