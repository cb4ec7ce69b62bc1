#include "server/schedule/flow_demand.h"

#include <algorithm>
#include <cstddef>

#include "server/schedule/request_table.h"

namespace qk {
namespace {

// How many requests of a flow are searched for runs that fit into a pass.
constexpr size_t kFronts = 64;
// A flow with more requests than this is assumed to want a whole turn.
constexpr size_t kFew = 8;

void AddQueue(const std::deque<QueuedRequest*>& queue, const RowTime& row_time,
              double turn, FlowDemand* demand) {
  for (QueuedRequest* queued : queue) {
    if (queued->no_room) continue;
    demand->fronts.push_back(queued);
    if (demand->fronts.size() == kFronts) break;
  }
  if (demand->fronts.size() > kFew) demand->wanted = turn;
  for (const QueuedRequest* queued : demand->fronts) {
    // More than a turn makes no difference.
    if (demand->wanted >= turn) break;
    for (const ScheduledRun& run : queued->waiting) {
      demand->wanted += row_time.SecondsOf(run.prefill_rows);
    }
  }
}

}  // namespace

std::map<Flow*, FlowDemand> FindDemand(const std::map<Flow*, double>& running,
                                       const RowTime& row_time, absl::Time now,
                                       RequestTable* table, absl::Time* wake,
                                       std::map<Flow*, absl::Time>* used_up) {
  std::map<Flow*, FlowDemand> demand;
  const auto used_up_until = [&](Flow* flow) {
    Account& account = *flow->account;
    const absl::Time fits = account.usage.WhenFits(now, account.budget, {});
    if (fits > now) {
      *wake = std::min(*wake, fits);
      (*used_up)[flow] = fits;
    }
    return fits;
  };
  for (const auto& [flow, wanted] : running) {
    demand[flow].wanted = wanted;
    demand[flow].used_up_until = used_up_until(flow);
  }
  FairShare& share = table->share();
  for (const auto& [flow, queue] : table->queues()) {
    const bool can_start =
        std::any_of(queue.begin(), queue.end(),
                    [](const QueuedRequest* q) { return !q->no_room; });
    if (!can_start || used_up_until(flow) > now) continue;
    AddQueue(queue, row_time, share.turn(), &demand[flow]);
  }
  for (const bool active : {false, true}) {
    for (auto& [alias, account] : share.accounts()) {
      for (Flow& flow : account.flows) {
        if (demand.contains(&flow) == active) share.SetActive(&flow, active);
      }
    }
  }
  for (auto& [flow, found] : demand) {
    found.virtual_time = flow->virtual_time;
    found.rank = share.Rank(*flow, found.wanted);
    found.pace = FairShare::Pace(*flow);
  }
  return demand;
}

}  // namespace qk
