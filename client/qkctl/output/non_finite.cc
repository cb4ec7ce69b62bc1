#include "client/qkctl/output/non_finite.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/qkctl/output/console.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

std::string Positions(const char* of, int64_t count) {
  return absl::StrCat("the ", of, " of ", count,
                      count == 1 ? " position" : " positions");
}

}  // namespace

std::string NonFiniteText(const v1::NonFinite& counts) {
  std::vector<std::string> parts;
  if (counts.captured() > 0) {
    parts.push_back(absl::StrCat(counts.captured(), counts.captured() == 1
                                                        ? " captured value"
                                                        : " captured values"));
  }
  if (counts.logits() > 0) {
    parts.push_back(Positions("logits", counts.logits()));
  }
  if (counts.kl() > 0) parts.push_back(Positions("KL", counts.kl()));
  return absl::StrJoin(parts, ", ");
}

std::string NonFiniteWeightsText(const v1::ModelInfo& model) {
  if (!model.has_non_finite_weights()) return "";
  const v1::NonFiniteWeights& weights = model.non_finite_weights();
  return absl::StrCat(
      weights.count(), weights.count() == 1 ? " weight" : " weights",
      " not finite (NaN or infinite), the first: ", Printable(weights.tensor()),
      "[", absl::StrJoin(weights.index(), ", "), "]");
}

std::vector<std::string> NonFiniteLines(const AnalysisResult& result) {
  std::vector<std::string> lines;
  for (const v1::ArmSummary& arm : result.finished.arms()) {
    const std::string text = NonFiniteText(arm.non_finite());
    if (text.empty()) continue;
    lines.push_back(absl::StrCat("arm ", Printable(arm.arm()),
                                 ": not finite (NaN or infinite): ", text));
  }
  return lines;
}

}  // namespace qk::client
