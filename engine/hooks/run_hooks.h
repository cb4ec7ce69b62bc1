// Runs a hook point: captures before, disrupts, captures after, for all
// sequences of a pass at once.
#ifndef QKSCOPE_ENGINE_HOOKS_RUN_HOOKS_H_
#define QKSCOPE_ENGINE_HOOKS_RUN_HOOKS_H_

#include "absl/types/span.h"
#include "engine/hooks/capture.h"
#include "engine/hooks/disrupt.h"
#include "engine/hooks/hook_ops.h"

namespace qk {

// A tensor of one sequence, or of one image, at a hook point.
struct HookedTensor {
  HookPoint point = HookPoint::kQ;
  RowSpan span;
  HeadRows x;  // what attention reads
  Capture* capture = nullptr;
  Disruptor* disruptor = nullptr;  // nullptr: no rules
  // What the cache keeps, if that is another tensor; else data is nullptr.
  // Rules that persist act on it, too.
  HeadRows kept = {};
};

// The tensors are of one layer, and none shares memory with another, unless
// only the capture of all but one reads it. The ops that run do not depend on
// the number of tensors.
void RunHooks(int layer, absl::Span<const HookedTensor> tensors, HookOps& ops);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_RUN_HOOKS_H_
