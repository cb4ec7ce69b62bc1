#include "server/calls/status_reader.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/time/clock.h"
#include "engine/base/monotonic.h"
#include "engine/model/model.h"
#include "server/calls/model_info.h"
#include "server/calls/user_states.h"
#include "server/common/text.h"

namespace qk {
namespace {

using Viewer = StatusPage::Viewer;

const char* StateName(ModelState state) {
  switch (state) {
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kUnloading:
      return "unloading";
    case ModelState::kFailed:
      return "failed";
  }
  return "";
}

StatusPage::Model ModelOf(const ModelEntry& entry) {
  const ModelDescription& description = entry.description;
  StatusPage::Model out;
  out.name = entry.name;
  out.state = StateName(entry.state);
  out.failure = StripPaths(entry.failure.message());
  out.architecture = description.config.architecture;
  out.layers = description.config.num_layers();
  out.weights_dtype = description.weights_dtype;
  out.compute = ComputeName(entry.compute);
  out.parameters = description.parameters;
  if (entry.model != nullptr) {
    out.host_bytes = entry.model->host_bytes();
    out.device_bytes = entry.model->device_bytes();
    out.load_seconds = entry.model->load_seconds();
  }
  return out;
}

StatusPage::Queue QueueOf(const RunParts& run) {
  const SchedulerState state = run.scheduler->state();
  StatusPage::Queue out;
  out.waiting = state.waiting_requests;
  out.running = state.running_requests;
  const SchedulerLoad load = run.scheduler->Load();
  out.limit = load.queue_limit;
  if (out.waiting > 0) out.oldest = load.oldest_wait;
  return out;
}

Viewer ViewerOf(const Identity& identity, const User* viewer) {
  if (!identity.requires_credentials()) return Viewer::kEverybody;
  if (viewer == nullptr) return Viewer::kNobody;
  return viewer->role == UserRole::kOperator ? Viewer::kOperator
                                             : Viewer::kUser;
}

std::vector<StatusPage::UserRow> UsersOf(const ServerCore& core, Viewer viewer,
                                         const User* user) {
  const Identity& identity = *core.call.identity;
  std::map<std::string, KeptAmount> kept;
  if (core.results.store != nullptr) kept = core.results.store->KeptByUser();
  std::vector<UserState> states = core.run.scheduler->Users();
  AddOwners(kept, identity, &states);
  std::erase_if(states, [&](const UserState& state) {
    return !MaySeeUser(identity, user, state.alias);
  });
  if (viewer == Viewer::kUser && states.empty()) {
    states.push_back(NewState(*user));
  }
  std::vector<StatusPage::UserRow> out;
  out.reserve(states.size());
  for (UserState& state : states) {
    const KeptAmount amount = kept[state.alias];
    out.push_back({std::move(state), amount.results, amount.bytes});
  }
  return out;
}

}  // namespace

StatusPage ReadStatus(
    const StatusSources& sources, const User* viewer,
    const std::function<bool(const std::string& model)>& may_see) {
  const ServerCore& core = *sources.core;
  StatusPage page;
  page.health = core.call.calls->draining() ? StatusPage::Health::kDraining
                : sources.health->serving() ? StatusPage::Health::kServing
                                            : StatusPage::Health::kStarting;
  page.version = core.run.server->version;
  page.backend = core.run.server->backend;
  page.device = sources.read_device();
  page.uptime = MonotonicNow() - sources.started;
  page.made = absl::Now();
  page.viewer = ViewerOf(*core.call.identity, viewer);
  if (viewer != nullptr) page.alias = viewer->alias;
  for (const ModelEntry& entry : core.call.registry->All()) {
    if (may_see(entry.name)) page.models.push_back(ModelOf(entry));
  }
  page.queue = QueueOf(core.run);
  page.users = UsersOf(core, page.viewer, viewer);
  if (const ResultStore* store = core.results.store; store != nullptr) {
    const KeptAmount kept = store->Kept();
    page.kept = {kept.results, sources.most_kept.results, kept.bytes,
                 sources.most_kept.bytes, store->ttl()};
  }
  page.activations = sources.recent->Read(may_see);
  return page;
}

}  // namespace qk
