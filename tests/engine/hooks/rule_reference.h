// Disruption rules in float64, written plainly from the API's definition of a
// rule: K and V are expanded to the query heads first, and sums run over whole
// columns. This code knows neither engine/types/rule_shape nor the backends.
#ifndef QKSCOPE_TESTS_ENGINE_HOOKS_RULE_REFERENCE_H_
#define QKSCOPE_TESTS_ENGINE_HOOKS_RULE_REFERENCE_H_

#include <cstdint>
#include <map>
#include <vector>

#include "engine/types/results.h"
#include "engine/types/spec.h"

namespace qk::testing {

// (rows, heads, dims)
struct Rows {
  int rows = 0, heads = 0, dims = 0;
  std::vector<double> values;

  Rows() = default;
  Rows(int r, int h, int d) : rows(r), heads(h), dims(d), values(r * h * d) {}
  double& at(int t, int h, int d) { return values[(t * heads + h) * dims + d]; }
  double at(int t, int h, int d) const {
    return values[(t * heads + h) * dims + d];
  }
  // Repeats each head until there are `to_heads`.
  Rows Expanded(int to_heads) const;
  // Returns the first head of every group.
  Rows FirstOfGroups(int to_heads) const;
  void Append(const Rows& more);
};

// Rotates the pairs (i, i + dims / 2) of the rows; the first row is at
// `position`.
Rows Rope(const Rows& x, int position, double theta);

// Computes causal softmax(scale q K^T) V of the last q.rows positions.
Rows CausalAttention(const Rows& q, const Rows& k, const Rows& v, double scale);

// Applies a rule to one tensor of one layer, pass after pass.
class RuleReference {
 public:
  RuleReference(const DisruptionRule& rule, int index, int layer, Qkv tensor,
                int num_heads, int num_kv_heads)
      : rule_(rule),
        index_(index),
        layer_(layer),
        tensor_(tensor),
        num_heads_(num_heads),
        counted_heads_(CountsQueryHeads() ? num_heads : num_kv_heads) {}

  // Runs one pass. `clean` has its rows (rows, query heads, dims), untouched by
  // this rule, from absolute position `start`; `step` -1 is the prompt.
  // `changed` has the same rows as other rules left them; Run writes the chosen
  // entries.
  void Run(const Rows& clean, int start, int step, Rows* changed);

  // Ends decode: a rule that reuses the prompt's choice reports all steps.
  void Finish();

  // Returns the reports that a qk::Run sends, in the same order.
  const std::vector<AppliedRule>& reports() const { return reports_; }

 private:
  struct Chosen {
    std::vector<int> dims;       // ascending
    std::vector<double> values;  // by dim; empty for scale
  };

  bool CountsQueryHeads() const {
    return tensor_ == Qkv::kQ ||
           rule_.kv_grouping == DisruptionRule::KvGrouping::kQueryHead;
  }
  std::vector<int> Heads() const;
  std::vector<int> Choose(const std::vector<double>& norms, int place,
                          int step) const;
  std::map<int, Chosen> ChooseForHeads(const Rows& counted, int step) const;
  // `view`, `written`: (rows, counted heads, dims); unwritten entries stay NaN.
  void PerHead(const Rows& view, int step, Rows* written);
  void PerToken(const Rows& view, int start, int step, Rows* written);
  void Write(const Chosen& chosen, const Rows& view, int row, int head,
             Rows* written) const;
  void Report(int step, const std::map<int, Chosen>& chosen, int64_t times);

  const DisruptionRule& rule_;
  const int index_, layer_;
  const Qkv tensor_;
  const int num_heads_, counted_heads_;
  Rows counted_;                  // rows of S and all generated tokens
  std::map<int, Chosen> prompt_;  // by head
  int64_t reused_ = 0;            // values written in decode with prompt_
  std::vector<AppliedRule> reports_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_HOOKS_RULE_REFERENCE_H_
