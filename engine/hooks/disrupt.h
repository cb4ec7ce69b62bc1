// Applies the disruption rules of one sequence (arXiv:2502.01563, section 4).
// proto/qkscope/v1/spec.proto defines the rules' exact meaning. Everything runs
// as backend ops.
#ifndef QKSCOPE_ENGINE_HOOKS_DISRUPT_H_
#define QKSCOPE_ENGINE_HOOKS_DISRUPT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/hooks/hook_ops.h"
#include "engine/types/model_config.h"
#include "engine/types/results.h"
#include "engine/types/row_span.h"
#include "engine/types/spec.h"

namespace qk {

// How the K and V that attention reads in a layer relate to those that the
// cache keeps.
enum class KvLayout {
  kShared,    // they are the same
  kCopied,    // attention reads its own copy, of the model's KV heads
  kExpanded,  // attention reads its own copy, one head per query head
};

class Disruptor {
 public:
  // Applies those of `rules` that act on the text. `positions`: the rows in
  // prefill. With an image it applies those that act on the vision tower, and
  // `positions` are that image's patches.
  Disruptor(const ModelConfig& config, const std::vector<DisruptionRule>& rules,
            int positions, int arm, int image = -1);

  // Device memory that Reserve takes, bytes.
  int64_t bytes() const;
  // Bytes of HookOps' memory that one report needs.
  int64_t staging_bytes() const { return staging_bytes_; }
  absl::Status Reserve(Backend* backend);

  bool empty() const { return states_.empty(); }
  KvLayout layout(int layer) const { return layouts_[layer]; }
  bool needs_copy() const { return needs_copy_; }
  // The largest number of heads that a layer's copy has.
  int copy_heads() const { return copy_heads_; }
  // Whether K or V has heads that differ inside a group there (CopiesDifferAt).
  bool copies_differ(HookPoint point, int layer, Stage stage,
                     Phase phase) const;

  // The rules that act at a point, in their order, by numbers for Apply:
  // those on what attention reads, or those that persist, on what the cache
  // keeps.
  std::vector<int> StatesAt(HookPoint point, int layer, bool on_cache) const;
  // Adds the jobs by which one of these acts on the rows, and its report's.
  void Apply(int state, const RowSpan& span, const HeadRows& x, HookOps& ops);

  // Forgets the prompt and all rows after it: they will run again. Runs `ops`.
  void Restart(HookOps& ops);
  // Reports how many values those rules wrote in decode that reuse the prompt's
  // choice. False: none.
  bool ReportDecode(HookOps& ops);
  // Returns the reports that have arrived on the host since the last call.
  std::vector<AppliedRule> TakeReports();

 private:
  // One rule on one tensor of one layer, in one layout.
  struct State {
    const DisruptionRule* rule = nullptr;
    int rule_index = 0;
    HookPoint point = HookPoint::kQ;
    Qkv tensor = Qkv::kQ;
    int layer = 0;
    bool on_cache = false;  // acts on what the cache keeps, reports nothing
    int head_dim = 0;
    std::vector<HeadRole> heads;  // physical
    int counted_heads = 0;        // as the rule counts them
    TensorRule tensor_rule;       // the form that ops take
    int64_t offset = 0;           // in memory_
    Moments moments;
    Choice choice;
    int64_t count = 0;            // positions in the moments
    int64_t unreported_rows = 0;  // written in decode with the prompt's choice
    int size() const { return static_cast<int>(heads.size()) * head_dim; }
    // Values and mask of a report. `rows`: those that a per_token rule acts on.
    int64_t ReportBytes(int64_t rows) const {
      return rule->axis == DisruptionRule::Axis::kPerHead ? int64_t{5} * size()
                                                          : rows * (4 + size());
    }
  };
  struct Report {
    AppliedRule applied;
    const State* state = nullptr;
    std::vector<int> positions;  // per_token: one per row of the mask
    // The values (float), then the mask (uint8_t).
    StagedResult data;
    int64_t num_values = 0;
    int64_t rows = 0;    // rows written, per_head
    bool chosen = true;  // whether the choice is new
  };

  void FindDifferingCopies(const ModelConfig& config);
  void AddState(const ModelConfig& config, int rule_index, Qkv tensor,
                int layer, bool on_cache);
  absl::Status MakeTensorRules();
  void RunPerHead(State& state, const RowSpan& span, const HeadRows& x,
                  const RowSet& rows, HookOps& ops);
  void RunPerToken(State& state, const RowSpan& span, const HeadRows& x,
                   const RowSet& rows, HookOps& ops);
  Report& AddReport(const State& state, const RowSpan& span);
  Report& ReportChoice(const State& state, const RowSpan& span, HookOps& ops);
  static void FillReport(const Report& report, AppliedRule* applied);

  const std::vector<DisruptionRule>& rules_;
  int positions_;
  int arm_;
  int image_;
  Backend* backend_ = nullptr;
  std::vector<KvLayout> layouts_;  // (layers)
  std::vector<bool> differ_;       // (layers, points, stages, phases)
  bool needs_copy_ = false;
  int copy_heads_ = 0;
  std::vector<State> states_;
  std::vector<std::vector<int>> by_layer_;  // states of each layer
  int64_t num_roles_ = 0;                   // all states' heads
  int64_t num_entries_ = 0;                 // all rules' entries
  int64_t state_bytes_ = 0;                 // all per_head rules
  int64_t staging_bytes_ = 0;               // of the largest report
  DeviceBuffer roles_;                      // HeadRole (num_roles_)
  DeviceBuffer entries_;                    // HeadDim (num_entries_)
  DeviceBuffer memory_;
  std::vector<Report> reports_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_DISRUPT_H_
