#include "server/schedule/queue_places.h"

#include <algorithm>

#include "server/schedule/request_table.h"

namespace qk {
namespace {

// One of so many places, and at least this many, are the operators' own.
constexpr int kOperatorsPart = 16;
constexpr int kLeastOfOperators = 4;

// The operators' requests that wait.
int WaitingOperators(RequestTable* table) {
  int waiting = 0;
  for (const auto& [alias, account] : table->share().accounts()) {
    if (account.role == UserRole::kOperator) waiting += account.queued;
  }
  return waiting;
}

// How many places each unit of weight has.
double PlacesPerWeight(const Account& newcomer, int limit,
                       RequestTable* table) {
  double weights = 0;
  for (const auto& [alias, account] : table->share().accounts()) {
    if (account.queued > 0 || &account == &newcomer) weights += account.weight;
  }
  return limit / weights;
}

// A user has one place at least.
double ShareOf(const Account& account, double per_weight) {
  return std::max(1.0, account.weight * per_weight);
}

// The newest request that waits. One that has had results already is taken only
// if there is no other.
QueuedRequest* NewestOf(const Account& account, RequestTable* table) {
  QueuedRequest* begun = nullptr;
  std::list<QueuedRequest>& requests = table->mutable_requests();
  for (auto it = requests.rbegin(); it != requests.rend(); ++it) {
    if (it->flow->account != &account) continue;
    if (!it->waits || it->ended || it->reserving) continue;
    if (it->request->started() == absl::InfiniteFuture()) return &*it;
    if (begun == nullptr) begun = &*it;
  }
  return begun;
}

}  // namespace

QueuePlace FindPlace(const Account& account, int limit, RequestTable* table) {
  const int operators = WaitingOperators(table);
  const int own = std::max(limit / kOperatorsPart, kLeastOfOperators);
  QueuePlace place;
  if (table->waiting() - std::min(operators, own) < limit ||
      (account.role == UserRole::kOperator && operators < own)) {
    place.found = true;
    return place;
  }
  const double per_weight = PlacesPerWeight(account, limit, table);
  if (account.queued + 1 > ShareOf(account, per_weight)) return place;
  double most = 0;
  for (auto& [alias, other] : table->share().accounts()) {
    const double over = other.queued - ShareOf(other, per_weight);
    if (over <= most) continue;
    QueuedRequest* newest = NewestOf(other, table);
    if (newest == nullptr) continue;
    most = over;
    place = {true, newest};
  }
  return place;
}

}  // namespace qk
