// Tables of the API's enum numbers and the engine's values for them.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_ENUMS_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_ENUMS_H_

#include <array>
#include <utility>

#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"

namespace qk {

template <typename To, size_t kSize>
using EnumTable = std::array<std::pair<int, To>, kSize>;

using Rule = DisruptionRule;
using RuleProto = ::qkscope::v1::DisruptionRule;

inline constexpr EnumTable<Qkv, 3> kQkvTable = {{
    {::qkscope::v1::QKV_TENSOR_Q, Qkv::kQ},
    {::qkscope::v1::QKV_TENSOR_K, Qkv::kK},
    {::qkscope::v1::QKV_TENSOR_V, Qkv::kV},
}};
inline constexpr EnumTable<HookPoint, 7> kHookPointTable = {{
    {::qkscope::v1::HOOK_Q, HookPoint::kQ},
    {::qkscope::v1::HOOK_K, HookPoint::kK},
    {::qkscope::v1::HOOK_V, HookPoint::kV},
    {::qkscope::v1::HOOK_ROT_Q, HookPoint::kRotQ},
    {::qkscope::v1::HOOK_ROT_K, HookPoint::kRotK},
    {::qkscope::v1::HOOK_Z, HookPoint::kZ},
    {::qkscope::v1::HOOK_PATTERN, HookPoint::kPattern},
}};
inline constexpr EnumTable<CaptureForm, 3> kFormTable = {{
    {::qkscope::v1::NORM_OVER_TOKENS, CaptureForm::kNormOverTokens},
    {::qkscope::v1::NORM_PER_TOKEN, CaptureForm::kNormPerToken},
    {::qkscope::v1::RAW, CaptureForm::kRaw},
}};
inline constexpr EnumTable<RawDtype, 3> kRawDtypeTable = {{
    {::qkscope::v1::F32, RawDtype::kF32},
    {::qkscope::v1::F16, RawDtype::kF16},
    {::qkscope::v1::BF16, RawDtype::kBF16},
}};
// Sets of phases and stages. The engine's bits equal the API's numbers.
inline constexpr EnumTable<unsigned, 3> kPhaseTable = {{
    {::qkscope::v1::PREFILL, static_cast<unsigned>(Phase::kPrefill)},
    {::qkscope::v1::DECODE, static_cast<unsigned>(Phase::kDecode)},
    {::qkscope::v1::BOTH, static_cast<unsigned>(Phase::kPrefill) |
                              static_cast<unsigned>(Phase::kDecode)},
}};
inline constexpr EnumTable<unsigned, 3> kStageTable = {{
    {::qkscope::v1::BEFORE, static_cast<unsigned>(Stage::kBefore)},
    {::qkscope::v1::AFTER, static_cast<unsigned>(Stage::kAfter)},
    {::qkscope::v1::BEFORE_AND_AFTER, static_cast<unsigned>(Stage::kBefore) |
                                          static_cast<unsigned>(Stage::kAfter)},
}};
inline constexpr EnumTable<Rule::Point, 2> kPointTable = {{
    {RuleProto::POST_ROPE, Rule::Point::kPostRope},
    {RuleProto::PRE_ROPE, Rule::Point::kPreRope},
}};
// The value says whether the rule acts on the vision tower.
inline constexpr EnumTable<bool, 2> kTowerTable = {{
    {RuleProto::TEXT, false},
    {RuleProto::VISION, true},
}};
inline constexpr EnumTable<Rule::Axis, 2> kAxisTable = {{
    {RuleProto::PER_HEAD, Rule::Axis::kPerHead},
    {RuleProto::PER_TOKEN, Rule::Axis::kPerToken},
}};
inline constexpr EnumTable<Rule::Replace, 4> kReplaceTable = {{
    {RuleProto::POOLED_MEAN, Rule::Replace::kPooledMean},
    {RuleProto::PER_DIM_MEAN, Rule::Replace::kPerDimMean},
    {RuleProto::ZERO, Rule::Replace::kZero},
    {RuleProto::SCALE, Rule::Replace::kScale},
}};
inline constexpr EnumTable<Rule::KvGrouping, 2> kKvGroupingTable = {{
    {RuleProto::KV_HEAD, Rule::KvGrouping::kKvHead},
    {RuleProto::QUERY_HEAD, Rule::KvGrouping::kQueryHead},
}};
inline constexpr EnumTable<Rule::KvCache, 2> kKvCacheTable = {{
    {RuleProto::PERSIST, Rule::KvCache::kPersist},
    {RuleProto::ATTENTION_ONLY, Rule::KvCache::kAttentionOnly},
}};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_ENUMS_H_
