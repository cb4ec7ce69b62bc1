// The shape of a disruption rule: which heads it counts, whether the copies of
// a KV head stay equal under it, and where, when and on which positions it
// acts. Validation and the engine both ask here, so that a rule means the same
// to both. The meaning is proto/qkscope/v1/spec.proto's.
#ifndef QKSCOPE_ENGINE_TYPES_RULE_SHAPE_H_
#define QKSCOPE_ENGINE_TYPES_RULE_SHAPE_H_

#include <vector>

#include "engine/types/model_config.h"
#include "engine/types/row_span.h"
#include "engine/types/spec.h"

namespace qk {

// --- heads
// The number of heads in which the rule counts `tensor`: the query heads for Q,
// and for K and V under kQueryHead; the KV heads otherwise.
int RuleHeads(const DisruptionRule& rule, Qkv tensor,
              const AttentionConfig& attention);

// Whether the rule acts on `head`, in its own counting.
bool ActsOnHead(const DisruptionRule& rule, int head);

// Whether the query heads of a group would read different K (or V) after the
// rule, so that each needs a copy of its own. Never true of Q, of kKvHead, and
// of a model whose groups have one head. It depends on the rule alone, not on
// the values of K.
bool CopiesDiffer(const DisruptionRule& rule, Qkv tensor,
                  const AttentionConfig& attention);

// Whether a rule has made the query heads of a group read different K (or V)
// once the hook point's stage is reached in a phase. Rules that act at an
// earlier point count, those of other phases do not. Never true of Q.
bool CopiesDifferAt(const std::vector<DisruptionRule>& rules, int layer,
                    HookPoint point, Stage stage, Phase phase,
                    const AttentionConfig& attention);

// --- points
// The hook point at which the rule acts on `tensor`. V has no RoPE: both of a
// rule's points mean the same.
HookPoint PointOf(const DisruptionRule& rule, Qkv tensor);

// The tensor that a hook point shows.
Qkv TensorOf(HookPoint point);

// --- phases
// The phases in which the rule chooses dims, and reports what it chose.
// kPerHead chooses in prefill, whenever it acts, and in decode with reselect.
// kPerToken chooses for each token that it changes.
PhaseSet ChoosingPhases(const DisruptionRule& rule);

// Whether decode rows must run one at a time under the rule: because it chooses
// for each, or because later rows read other K and V of a row than the row
// itself does.
bool DecodesRowByRow(const DisruptionRule& rule);

// --- positions, absolute and within the pass; the range may be empty
// Those whose norms and means count. A generated token always counts.
Range CountedPositions(const DisruptionRule& rule, const RowSpan& span);

// Those that the rule changes if it acts in the pass's phase. A generated token
// is always among them.
Range ChangedPositions(const DisruptionRule& rule, const RowSpan& span);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_RULE_SHAPE_H_
