#include "server/schedule/request_table.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/base/monotonic.h"

namespace qk {
namespace {

// Streaming this many bytes costs as much as a second of the device.
constexpr double kBytesPerSecond = 1e9;

}  // namespace

QueuedRequest* RequestTable::Find(const ScheduledRequest* request) const {
  const auto it = by_request_.find(request);
  return it == by_request_.end() ? nullptr : it->second;
}

QueuedRequest* RequestTable::Add(
    const std::shared_ptr<ScheduledRequest>& request, absl::Time now,
    uint64_t arrival) {
  const RequestInfo& info = request->info();
  Account* account = share_.AccountOf(*info.user);
  QueuedRequest* queued = &requests_.emplace_back();
  queued->self = std::prev(requests_.end());
  queued->request = request;
  queued->flow = &account->flows[static_cast<int>(info.priority)];
  by_request_[request.get()] = queued;
  const bool is_new =
      in_flight_
          .try_emplace(request.get(), InFlight{request, account, now, arrival})
          .second;
  if (is_new) ++account->in_flight;
  SetWaiting(now, queued);
  return queued;
}

void RequestTable::AddRuns(QueuedRequest* queued,
                           std::vector<ScheduledRun> runs) {
  if (queued->waiting.empty() && !queued->reserving) {
    queues_[queued->flow].push_back(queued);
  }
  for (ScheduledRun& run : runs) queued->waiting.push_back(std::move(run));
}

std::vector<const Model*> RequestTable::NextModels(
    const std::deque<QueuedRequest*>& requests) {
  std::vector<const Model*> models;
  for (const QueuedRequest* queued : requests) {
    if (queued->waiting.empty()) continue;
    const Model* model = queued->waiting.front().run->next_model();
    if (blocked_.MayAdmit(queued, model)) models.push_back(model);
  }
  return models;
}

std::optional<QueuedRun> RequestTable::Take(QueuedRequest* queued,
                                            const Model* model,
                                            int64_t max_rows, bool* too_long) {
  *too_long = false;
  if (queued->waiting.empty()) return std::nullopt;
  ScheduledRun& front = queued->waiting.front();
  if (!blocked_.MayAdmit(queued, front.run->next_model()) ||
      front.run->next_model() != model || front.run->cancelled()) {
    return std::nullopt;
  }
  if (front.prefill_rows > max_rows) {
    *too_long = true;
    return std::nullopt;
  }
  if (front.room != nullptr && !front.room->TakeRoom()) {
    queued->no_room = true;
    return std::nullopt;
  }
  QueuedRun taken = {queued, queued->request.get(), queued->flow,
                     std::move(front)};
  queued->waiting.pop_front();
  queued->reserving = true;
  RemoveFromQueue(queued);
  return taken;
}

void RequestTable::Admit(const QueuedRun& run, const Model* model) {
  QueuedRequest* queued = run.queued;
  queued->reserving = false;
  blocked_.Unblock(model);
  if (!queued->waiting.empty()) queues_[queued->flow].push_back(queued);
  ++queued->active;
  queued->flow->account->memory_bytes += run.scheduled.memory_bytes;
  StopWaiting(queued);
}

bool RequestTable::PutBack(QueuedRun* run, const Model* model) {
  // Nobody would end a run that was cancelled before it is put back.
  if (run->scheduled.run->cancelled()) return false;
  QueuedRequest* queued = run->queued;
  queued->reserving = false;
  blocked_.Block(queued, model);
  queued->waiting.push_front(std::move(run->scheduled));
  queues_[queued->flow].push_front(queued);
  return true;
}

void RequestTable::Refuse(const QueuedRun& run, const Model* model) {
  QueuedRequest* queued = run.queued;
  queued->reserving = false;
  blocked_.Unblock(model);
  blocked_.RunEnded();
  if (!queued->waiting.empty()) queues_[queued->flow].push_back(queued);
  MarkMaybeEmpty(queued);
}

void RequestTable::EndRun(absl::Time now, QueuedRequest* queued,
                          int64_t memory_bytes) {
  blocked_.RunEnded();
  --queued->active;
  queued->flow->account->memory_bytes -= memory_bytes;
  if (queued->active == 0 && !queued->reserving) SetWaiting(now, queued);
  MarkMaybeEmpty(queued);
}

std::optional<std::deque<ScheduledRun>> RequestTable::TakeWaiting(
    const ScheduledRequest* request) {
  QueuedRequest* queued = Find(request);
  if (queued == nullptr) return std::nullopt;
  if (!queued->waiting.empty() && !queued->reserving) RemoveFromQueue(queued);
  if (queued->active == 0 && !queued->reserving) StopCounting(queued);
  MarkMaybeEmpty(queued);
  return std::exchange(queued->waiting, {});
}

RequestTable::Requests RequestTable::TakeEmpty() {
  Requests erased;
  for (QueuedRequest* queued : std::exchange(maybe_empty_, {})) {
    queued->maybe_empty = false;
    if (!queued->waiting.empty() || queued->active > 0 || queued->reserving) {
      continue;
    }
    StopCounting(queued);
    blocked_.Forget(queued);
    erased.push_back(std::move(queued->request));
    requests_.erase(queued->self);
  }
  return erased;
}

void RequestTable::RoomFreed() {
  for (QueuedRequest& queued : requests_) queued.no_room = false;
}

void RequestTable::EndCall(const ScheduledRequest* request) {
  const auto it = in_flight_.find(request);
  if (it == in_flight_.end()) return;
  --it->second.account->in_flight;
  in_flight_.erase(it);
}

void RequestTable::ChargeDevice(absl::Time now, QueuedRequest* queued,
                                double seconds) {
  Account& account = *queued->flow->account;
  account.device_seconds += seconds;
  account.usage.Add(now, account.budget, {seconds, 0});
  share_.Charge(queued->flow, seconds);
  queued->request->Charge(seconds);
}

void RequestTable::ChargeHost(absl::Time now, const User& user,
                              Priority priority, double seconds) {
  Account* account = share_.AccountOf(user);
  account->host_seconds += seconds;
  account->usage.Add(now, account->budget, {seconds, 0, seconds});
  share_.Charge(&account->flows[static_cast<int>(priority)], seconds);
}

void RequestTable::ChargeBytes(absl::Time now, const User& user,
                               Priority priority, int64_t bytes) {
  Account* account = share_.AccountOf(user);
  account->bytes += bytes;
  account->usage.Add(now, account->budget, {0, bytes});
  share_.Charge(&account->flows[static_cast<int>(priority)],
                static_cast<double>(bytes) / kBytesPerSecond);
}

void RequestTable::TellPositions(absl::Time now) {
  observer_->OnQueue(waiting(), running());
  positions_.Tell(now, waiting_, &requests_);
}

int64_t RequestTable::WaitingRows() const {
  int64_t rows = 0;
  for (const QueuedRequest& queued : requests_) {
    for (const ScheduledRun& run : queued.waiting) rows += run.prefill_rows;
  }
  return rows;
}

std::vector<ListedRequest> RequestTable::List() const {
  using Item = std::pair<const ScheduledRequest* const, InFlight>;
  std::vector<const Item*> items;
  for (const Item& item : in_flight_) items.push_back(&item);
  std::sort(items.begin(), items.end(), [](const Item* a, const Item* b) {
    return a->second.arrival < b->second.arrival;
  });
  std::vector<ListedRequest> out;
  out.reserve(items.size());
  for (const Item* item : items) {
    const auto& [request, in_flight] = *item;
    ListedRequest& listed = out.emplace_back();
    listed.info = request->info();
    listed.submitted = in_flight.submitted;
    listed.started = request->started();
    listed.device_seconds = request->device_seconds();
    const QueuedRequest* queued = Find(request);
    listed.streaming = queued == nullptr;
    if (listed.streaming) continue;
    listed.running = !queued->waits;
    listed.position = std::max(0, queued->position);
  }
  return out;
}

std::shared_ptr<ScheduledRequest> RequestTable::FindById(
    const std::string& id) const {
  for (const auto& [request, in_flight] : in_flight_) {
    if (request->info().id == id) return in_flight.request.lock();
  }
  return nullptr;
}

std::vector<UserState> RequestTable::Users(absl::Time now) {
  std::vector<UserState> out;
  for (auto& [alias, account] : share_.accounts()) {
    UserState& user = out.emplace_back();
    user.alias = alias;
    user.weight = account.weight;
    user.budget = account.budget;
    user.window = account.usage.Sum(now, account.budget);
    user.device_seconds = account.device_seconds + account.host_seconds;
    user.host_seconds = account.host_seconds;
    user.bytes = account.bytes;
    user.in_flight = account.in_flight;
    user.queued = account.queued;
    for (const Flow& flow : account.flows) {
      if (flow.active) user.share += share_.ShareOf(flow);
    }
  }
  return out;
}

SchedulerLoad RequestTable::Load(absl::Time now) {
  SchedulerLoad load;
  for (const QueuedRequest& queued : requests_) {
    if (!queued.waits) continue;
    load.oldest_wait = std::max(load.oldest_wait, now - queued.waits_since);
  }
  load.users.reserve(share_.accounts().size());
  for (auto& [alias, account] : share_.accounts()) {
    load.users.push_back(
        {.alias = alias,
         .device_seconds = account.device_seconds,
         .bytes = account.bytes,
         .memory_bytes = account.memory_bytes,
         .in_flight = account.in_flight,
         .budget_used = account.usage.UsedPart(now, account.budget)});
  }
  return load;
}

void RequestTable::SetWaiting(absl::Time now, QueuedRequest* queued) {
  if (std::exchange(queued->waits, true)) return;
  queued->waits_since = now;
  ++waiting_;
  ++queued->flow->account->queued;
}

void RequestTable::StopWaiting(QueuedRequest* queued) {
  if (!std::exchange(queued->waits, false)) return;
  --waiting_;
  --queued->flow->account->queued;
}

void RequestTable::StopCounting(QueuedRequest* queued) {
  if (std::exchange(queued->ended, true)) return;
  const absl::Time cancelled = queued->request->cancelled_at();
  if (cancelled < absl::InfiniteFuture()) {
    observer_->OnCancelled(absl::ToDoubleSeconds(MonotonicNow() - cancelled));
  }
  StopWaiting(queued);
  by_request_.erase(queued->request.get());
}

void RequestTable::MarkMaybeEmpty(QueuedRequest* queued) {
  if (!std::exchange(queued->maybe_empty, true)) maybe_empty_.push_back(queued);
}

void RequestTable::RemoveFromQueue(QueuedRequest* queued) {
  std::deque<QueuedRequest*>& queue = queues_[queued->flow];
  queue.erase(std::find(queue.begin(), queue.end(), queued));
}

}  // namespace qk
