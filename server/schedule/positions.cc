#include "server/schedule/positions.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "server/schedule/queued_request.h"

namespace qk {
namespace {

// If more requests than this wait, they are told their positions this often.
constexpr int kTellAtOnce = 32;
constexpr absl::Duration kTellEvery = absl::Milliseconds(200);

void TellOne(int position, QueuedRequest* queued) {
  if (position == queued->position) return;
  queued->position = position;
  queued->request->TellPosition(position);
}

}  // namespace

void Positions::Tell(absl::Time now, int waiting,
                     std::list<QueuedRequest>* requests) {
  if (waiting > kTellAtOnce && now - told_ < kTellEvery) return;
  told_ = now;
  std::map<const Flow*, int> of_flow;
  std::vector<std::pair<int, QueuedRequest*>> order;
  for (QueuedRequest& queued : *requests) {
    if (queued.waits) order.emplace_back(of_flow[queued.flow]++, &queued);
  }
  std::stable_sort(
      order.begin(), order.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < order.size(); ++i) {
    TellOne(static_cast<int>(i), order[i].second);
  }
  for (QueuedRequest& queued : *requests) {
    if (!queued.waits && !queued.ended) TellOne(0, &queued);
  }
}

}  // namespace qk
