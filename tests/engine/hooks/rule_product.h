// Every combination of a disruption rule's fields, and the list of those that
// are refused. The list is written by hand from the API's definition of a rule:
// nothing here calls engine/types/rule_shape.
#ifndef QKSCOPE_TESTS_ENGINE_HOOKS_RULE_PRODUCT_H_
#define QKSCOPE_TESTS_ENGINE_HOOKS_RULE_PRODUCT_H_

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "engine/types/spec.h"

namespace qk::testing {

// The models have 4 query heads on 2 KV heads of head_dim 8.
inline constexpr int kProductHeads = 4;
inline constexpr int kProductKvHeads = 2;
inline constexpr int kProductHeadDim = 8;

enum class HeadChoice { kAll, kWholeGroup, kPartOfGroups };

// How a rule chooses dims. Two of the draws leave nothing to chance.
enum class Choice {
  kTop,
  kTopNone,  // k = 0
  kBottom,
  kRandom,
  kRandomNone,    // k = 0
  kRandomForced,  // k + exclude_top = head_dim
  kThreshold,
  kExplicit
};

struct Combination {
  DisruptionRule rule;  // the test sets layers and spans
  Choice choice;
  HeadChoice heads;

  bool ActsOn(Qkv tensor) const {
    for (Qkv t : rule.tensors) {
      if (t == tensor) return true;
    }
    return false;
  }
  bool ActsOnKv() const { return ActsOn(Qkv::kK) || ActsOn(Qkv::kV); }
  bool per_token() const {
    return rule.axis == DisruptionRule::Axis::kPerToken;
  }
  bool query_head() const {
    return rule.kv_grouping == DisruptionRule::KvGrouping::kQueryHead;
  }
  bool persist() const {
    return rule.kv_cache == DisruptionRule::KvCache::kPersist;
  }
  // Whether the rule makes the copies of a KV head differ.
  bool copies_differ() const {
    if (rule.vision || !query_head()) return false;
    if (heads == HeadChoice::kPartOfGroups) {
      return choice != Choice::kTopNone && choice != Choice::kRandomNone;
    }
    if (choice == Choice::kRandom) return !per_token();
    // With all heads, the explicit list below names different dims for heads 0
    // and 1.
    return choice == Choice::kExplicit && heads == HeadChoice::kAll;
  }
};

inline std::ostream& operator<<(std::ostream& os, const Combination& c) {
  const DisruptionRule& r = c.rule;
  const auto pick = [](auto value, std::vector<const char*> names) {
    return names[static_cast<size_t>(value)];
  };
  os << (r.vision ? "vision " : "")
     << pick(c.choice, {"top_k", "top_k:0", "bottom_k", "random_k",
                        "random_k:0", "random_k:all", "threshold", "explicit"})
     << pick(r.axis, {" per_head", " per_token"})
     << pick(r.replace, {" pooled_mean", " per_dim_mean", " zero", " scale"})
     << pick(r.point, {" post_rope", " pre_rope"})
     << pick(r.kv_grouping, {" kv_head", " query_head"})
     << pick(r.kv_cache, {" persist", " attention_only"})
     << pick(r.phase, {"", " prefill", " decode", " both"})
     << (r.reselect ? " reselect" : "")
     << pick(c.heads, {" all heads", " a group", " parts of groups"}) << ' ';
  for (Qkv tensor : r.tensors) os << pick(tensor, {"q", "k", "v"});
  return os;
}

// A combination is refused for the first of these that holds. `message` follows
// the rule's path.
struct Refusal {
  bool (*holds)(const Combination&);
  std::string message;
};

inline std::vector<Refusal> Refusals() {
  using Rule = DisruptionRule;
  return {
      // An image's patches are one prefill, and the tower has no cache.
      {[](const Combination& c) { return c.rule.vision && c.rule.reselect; },
       ".reselect: has no meaning in tower VISION"},
      // A token has no mean over S.
      {[](const Combination& c) {
         return c.per_token() && c.rule.replace == Rule::Replace::kPerDimMean;
       },
       ".replace: PER_DIM_MEAN needs axis PER_HEAD, got PER_TOKEN"},
      // An entry names one head; per_token changes a dim in all heads.
      {[](const Combination& c) {
         return c.per_token() && c.choice == Choice::kExplicit;
       },
       ".explicit: needs axis PER_HEAD, got PER_TOKEN"},
      {[](const Combination& c) {
         return c.rule.vision &&
                c.rule.phase != static_cast<PhaseSet>(Phase::kPrefill);
       },
       ".phase: tower VISION has no phase but PREFILL"},
      {[](const Combination& c) { return c.rule.vision && !c.persist(); },
       ".kv_cache: tower VISION has no cache"},
      // The cache has one K (or V) for a group of query heads. A tower has no
      // groups.
      {[](const Combination& c) {
         return c.persist() && c.ActsOnKv() && c.copies_differ();
       },
       ".kv_cache: PERSIST cannot keep copies of K or V that differ inside a "
       "group (kv_grouping QUERY_HEAD); use ATTENTION_ONLY"},
  };
}

// Returns null if the combination is accepted. `refusals`: Refusals().
inline const Refusal* RefusalOf(const Combination& combination,
                                const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    if (refusal.holds(combination)) return &refusal;
  }
  return nullptr;
}

inline void SetHeads(bool counts_query_heads, Combination* c) {
  DisruptionRule& rule = c->rule;
  // If KV heads count (or a tower's heads, of which there are 2), one is a
  // whole group.
  const bool whole = c->heads == HeadChoice::kWholeGroup;
  if (counts_query_heads) {
    rule.heads = whole ? std::vector<int>{2, 3} : std::vector<int>{1, 2};
  } else {
    rule.heads = whole ? std::vector<int>{1} : std::vector<int>{0};
  }
  if (c->heads == HeadChoice::kAll) rule.heads.clear();
  if (c->choice != Choice::kExplicit) return;
  if (c->heads == HeadChoice::kAll) {
    rule.heads = {0, 1};
    rule.entries = {{0, 3}, {1, 3}, {1, 6}};
    return;
  }
  for (int head : rule.heads) {
    rule.entries.push_back({head, 2});
    rule.entries.push_back({head, 5});
  }
}

inline void SetChoice(DisruptionRule* rule, Choice choice) {
  using Select = DisruptionRule::Select;
  rule->k = 2;
  rule->seed = 11;
  rule->exclude_top = 1;
  rule->lambda = 1.1;
  switch (choice) {
    case Choice::kTopNone:
      rule->k = 0;
      [[fallthrough]];
    case Choice::kTop:
      rule->select = Select::kTopK;
      return;
    case Choice::kBottom:
      rule->select = Select::kBottomK;
      return;
    case Choice::kRandomNone:
      rule->k = 0;
      [[fallthrough]];
    case Choice::kRandom:
      rule->select = Select::kRandomK;
      return;
    case Choice::kRandomForced:
      rule->select = Select::kRandomK;
      rule->exclude_top = kProductHeadDim - rule->k;
      return;
    case Choice::kThreshold:
      rule->select = Select::kThreshold;
      return;
    case Choice::kExplicit:
      rule->select = Select::kExplicit;
      return;
  }
}

// Returns the combinations for one choice of dims.
inline std::vector<Combination> RuleProduct(Choice choice, bool vision) {
  using Rule = DisruptionRule;
  const Qkv q = Qkv::kQ, k = Qkv::kK, v = Qkv::kV;
  const std::vector<std::vector<Qkv>> tensors = {
      {q}, {k}, {v}, {q, k}, {q, v}, {k, v}, {q, k, v}};
  // Each field of few values takes one or two bits of `index`.
  constexpr int kFewValues = 1 << 7;
  std::vector<Combination> all;
  for (int index = 0; index < kFewValues; ++index) {
    for (PhaseSet phase = 1; phase <= 3; ++phase) {
      for (int heads = 0; heads < 3; ++heads) {
        for (const std::vector<Qkv>& some : tensors) {
          Combination& c = all.emplace_back();
          Rule& rule = c.rule;
          rule.vision = vision;
          rule.axis = static_cast<Rule::Axis>(index & 1);
          rule.kv_grouping = static_cast<Rule::KvGrouping>(index >> 1 & 1);
          rule.kv_cache = static_cast<Rule::KvCache>(index >> 2 & 1);
          rule.point = static_cast<Rule::Point>(index >> 3 & 1);
          rule.reselect = (index >> 4 & 1) != 0;
          rule.replace = static_cast<Rule::Replace>(index >> 5 & 3);
          if (rule.replace == Rule::Replace::kScale) rule.factor = -0.5;
          rule.phase = phase;
          rule.tensors = some;
          c.choice = choice;
          c.heads = static_cast<HeadChoice>(heads);
          SetChoice(&rule, choice);
          SetHeads(!vision && (c.query_head() || !c.ActsOnKv()), &c);
        }
      }
    }
  }
  return all;
}

inline constexpr Choice kChoices[] = {
    Choice::kTop,       Choice::kTopNone,    Choice::kBottom,
    Choice::kRandom,    Choice::kRandomNone, Choice::kRandomForced,
    Choice::kThreshold, Choice::kExplicit};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_HOOKS_RULE_PRODUCT_H_
