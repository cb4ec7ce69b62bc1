#include "engine/hooks/run_hooks.h"

#include <cstddef>
#include <vector>

#include "engine/hooks/capture_timer.h"

namespace qk {
namespace {

// The rules that act on one tensor, in their order.
struct Lane {
  Disruptor* disruptor;
  const RowSpan* span;
  const HeadRows* x;
  std::vector<int> states;
};

void Record(int layer, Stage stage, absl::Span<const HookedTensor> tensors,
            HookOps& ops) {
  CaptureTimer timer;
  for (const HookedTensor& t : tensors) {
    const bool by_query =
        t.disruptor != nullptr && t.span.image < 0 &&
        t.disruptor->copies_differ(t.point, layer, stage, t.span.phase);
    timer.Add(t.capture, t.capture->Record(t.point, layer, stage, t.span, t.x,
                                           by_query, ops));
  }
  if (timer.empty()) return;
  ops.Run();
  timer.Charge();
}

// A tensor's next rule must see what the one before wrote, so the first rules
// of all tensors run together, then the second ones, and so on.
void Disrupt(int layer, absl::Span<const HookedTensor> tensors, HookOps& ops) {
  std::vector<Lane> lanes;
  for (const HookedTensor& t : tensors) {
    if (t.disruptor == nullptr || t.disruptor->empty()) continue;
    lanes.push_back({t.disruptor, &t.span, &t.x,
                     t.disruptor->StatesAt(t.point, layer, false)});
    if (t.kept.data == nullptr) continue;
    lanes.push_back({t.disruptor, &t.span, &t.kept,
                     t.disruptor->StatesAt(t.point, layer, true)});
  }
  for (size_t i = 0, left = lanes.size(); left > 0; ++i) {
    left = 0;
    for (const Lane& lane : lanes) {
      if (i >= lane.states.size()) continue;
      lane.disruptor->Apply(lane.states[i], *lane.span, *lane.x, ops);
      ++left;
    }
    ops.Run();
  }
}

}  // namespace

void RunHooks(int layer, absl::Span<const HookedTensor> tensors, HookOps& ops) {
  Record(layer, Stage::kBefore, tensors, ops);
  Disrupt(layer, tensors, ops);
  Record(layer, Stage::kAfter, tensors, ops);
}

}  // namespace qk
