// What is told of requests and users.
#include <algorithm>
#include <string>
#include <utility>

#include "server/schedule/scheduler.h"

namespace qk {

Scheduler::State Scheduler::state() const {
  std::lock_guard<std::mutex> lock(mutex_);
  State state;
  state.waiting_requests = waiting_;
  state.running_requests = static_cast<int>(by_request_.size()) - waiting_;
  for (const Entry& entry : entries_) {
    for (const ScheduledRun& run : entry.waiting) {
      state.rows_ahead += run.prefill_rows;
    }
  }
  state.seconds_per_row = seconds_per_row_;
  return state;
}

std::vector<Scheduler::Listed> Scheduler::List() const {
  std::vector<std::pair<uint64_t, Listed>> found;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [request, known] : known_) {
      auto& [arrival, listed] = found.emplace_back();
      arrival = known.arrival;
      listed.info = request->info();
      listed.submitted = known.submitted;
      listed.started = request->started();
      listed.device_seconds = request->device_seconds();
      const auto entry = by_request_.find(request);
      listed.streaming = entry == by_request_.end();
      if (listed.streaming) continue;
      listed.running = !entry->second->waits;
      listed.position = std::max(0, entry->second->position);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Listed> out;
  for (auto& [arrival, listed] : found) out.push_back(std::move(listed));
  return out;
}

std::shared_ptr<ScheduledRequest> Scheduler::Find(const std::string& id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [request, known] : known_) {
    if (request->info().id == id) return known.request.lock();
  }
  return nullptr;
}

std::vector<Scheduler::UserState> Scheduler::Users() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<UserState> out;
  for (auto& [alias, account] : share_.accounts()) {
    UserState& user = out.emplace_back();
    user.alias = alias;
    user.weight = account.weight;
    user.budget = account.budget;
    user.window = account.usage.Sum(clock_->Now(), account.budget);
    user.device_seconds = account.device_seconds;
    user.bytes = account.bytes;
    user.in_flight = account.in_flight;
    user.queued = account.queued;
    for (const Flow& flow : account.flows) {
      if (flow.active) user.share += share_.ShareOf(flow);
    }
  }
  return out;
}

}  // namespace qk
