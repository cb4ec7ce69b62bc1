#include "server/schedule/fair_share.h"

#include <algorithm>
#include <limits>

namespace qk {
namespace {

// The head start, in turns, of an interactive flow that becomes active: its
// requests run before every other flow has had a turn.
constexpr double kHeadStart = 2;

double ClassShare(Priority priority) {
  return priority == Priority::kBatch ? kBatchShare : 1.0;
}

// The flow's weight relative to those of other users.
double WeightOf(const Flow& flow) {
  double sum = 0, best = 0;
  for (const Flow& other : flow.account->flows) {
    if (!other.active && &other != &flow) continue;
    const double share = ClassShare(other.priority);
    sum += share;
    best = std::max(best, share);
  }
  return flow.account->weight * best * ClassShare(flow.priority) / sum;
}

}  // namespace

Account* FairShare::AccountOf(const User& user) {
  const auto [it, inserted] = accounts_.try_emplace(user.alias);
  Account& account = it->second;
  if (inserted) {
    account.alias = user.alias;
    for (int i = 0; i < kNumPriorities; ++i) {
      account.flows[i].priority = static_cast<Priority>(i);
      account.flows[i].account = &account;
    }
  }
  account.weight = user.weight;
  account.role = user.role;
  account.budget = user.budget;
  return &account;
}

double FairShare::Pace(const Flow& flow) { return 1.0 / WeightOf(flow); }

double FairShare::LeastTurn() const {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [alias, account] : accounts_) {
    for (const Flow& flow : account.flows) {
      if (flow.active) least = std::min(least, flow.turn_began);
    }
  }
  return least;
}

void FairShare::RaiseFloor(const Flow& last) {
  const double least = LeastTurn();
  // When no flow is active, the next one starts where the last one stopped.
  floor_ = std::max(floor_, least < std::numeric_limits<double>::infinity()
                                ? least
                                : last.virtual_time);
}

void FairShare::SetActive(Flow* flow, bool active) {
  if (flow->active == active) return;
  if (active) {
    flow->fresh = true;
    flow->virtual_time = std::max(flow->virtual_time, floor_);
    flow->turn_began = flow->virtual_time;
  }
  flow->active = active;
  RaiseFloor(*flow);
}

void FairShare::Charge(Flow* flow, double cost) {
  const double pace = Pace(*flow);
  flow->virtual_time += cost * pace;
  if (flow->virtual_time - flow->turn_began >= turn_ * pace) {
    flow->turn_began = flow->virtual_time;
    flow->fresh = false;
  }
  RaiseFloor(*flow);
}

double FairShare::Rank(const Flow& flow, double wanted) const {
  const double pace = Pace(flow);
  const double turn = turn_ * pace;
  const double had = flow.virtual_time - flow.turn_began;
  const double end = flow.turn_began + std::min(turn, had + wanted * pace);
  const bool ahead = flow.fresh && flow.priority == Priority::kInteractive;
  return ahead ? end - kHeadStart * turn : end;
}

double FairShare::ShareOf(const Flow& flow) const {
  double all = flow.active ? 0 : WeightOf(flow);
  for (const auto& [alias, account] : accounts_) {
    for (const Flow& other : account.flows) {
      if (other.active) all += WeightOf(other);
    }
  }
  return WeightOf(flow) / all;
}

}  // namespace qk
