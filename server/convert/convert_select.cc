// Converts the fields of a rule that select dims.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "server/convert/convert_fields.h"
#include "server/convert/rule_converter.h"

namespace qk {

absl::Status RuleConverter::CheckK(absl::string_view name, int k) {
  if (k < 0) {
    return BadField(Sub(name), absl::StrFormat("%d is negative", k));
  }
  const int head_dim = HeadDim();
  if (k <= head_dim) return absl::OkStatus();
  return BadField(Sub(name),
                  absl::StrFormat("%d exceeds head_dim %d", k, head_dim));
}

absl::Status RuleConverter::RandomK() {
  const auto& random = in.random_k();
  out.select = DisruptionRule::Select::kRandomK;
  out.k = random.k();
  out.seed = random.seed();
  out.exclude_top = random.has_exclude_top() ? random.exclude_top() : out.k;
  QK_RETURN_IF_ERROR(CheckK("random_k.k", out.k));
  QK_RETURN_IF_ERROR(CheckK("random_k.exclude_top", out.exclude_top));
  const int head_dim = HeadDim();
  if (out.k + out.exclude_top > head_dim) {
    return BadField(Sub("random_k"),
                    absl::StrFormat("k %d plus exclude_top %d exceeds head_dim "
                                    "%d",
                                    out.k, out.exclude_top, head_dim));
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Explicit() {
  const auto& entries = in.explicit_().entries();
  const std::string name = Sub("explicit.entries");
  out.select = DisruptionRule::Select::kExplicit;
  if (entries.empty()) return BadField(name, "must not be empty");
  QK_RETURN_IF_ERROR(CheckCount(name, entries.size(), limits.max_list_entries));
  const int head_dim = HeadDim();
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < entries.size(); ++i) {
    const int head = entries[i].head(), dim = entries[i].dim();
    const std::string entry = absl::StrFormat("%s[%d]", name, i);
    for (Qkv tensor : out.tensors) {
      const int heads = HeadsOf(tensor);
      if (head >= 0 && head < heads) continue;
      return BadField(absl::StrCat(entry, ".head"),
                      absl::StrFormat("%d is outside [0, %d) of %s", head,
                                      heads, QkvName(tensor)));
    }
    if (dim < 0 || dim >= head_dim) {
      return BadField(absl::StrCat(entry, ".dim"),
                      absl::StrFormat("%d is outside [0, %d)", dim, head_dim));
    }
    if (!out.heads.empty() &&
        !std::binary_search(out.heads.begin(), out.heads.end(), head)) {
      return BadField(absl::StrCat(entry, ".head"),
                      absl::StrFormat("%d is not one of heads", head));
    }
    if (!seen.insert({head, dim}).second) {
      return BadField(entry,
                      absl::StrFormat("(%d, %d) is given twice", head, dim));
    }
    out.entries.push_back({head, dim});
  }
  // Other rules may own the heads without an entry.
  out.heads.clear();
  for (const auto& [head, dim] : seen) {
    if (out.heads.empty() || out.heads.back() != head) {
      out.heads.push_back(head);
    }
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Select() {
  switch (in.select_case()) {
    case pb::DisruptionRule::kTopK:
      out.select = DisruptionRule::Select::kTopK;
      out.k = in.top_k().k();
      return CheckK("top_k.k", out.k);
    case pb::DisruptionRule::kBottomK:
      out.select = DisruptionRule::Select::kBottomK;
      out.k = in.bottom_k().k();
      return CheckK("bottom_k.k", out.k);
    case pb::DisruptionRule::kRandomK:
      return RandomK();
    case pb::DisruptionRule::kThreshold:
      out.select = DisruptionRule::Select::kThreshold;
      if (in.threshold().has_lambda()) out.lambda = in.threshold().lambda();
      return CheckPositive(Sub("threshold.lambda"), out.lambda);
    case pb::DisruptionRule::kExplicit:
      return Explicit();
    case pb::DisruptionRule::SELECT_NOT_SET:
      break;
  }
  return BadField(field,
                  "exactly one of top_k, bottom_k, random_k, threshold, "
                  "explicit must be set");
}

}  // namespace qk
