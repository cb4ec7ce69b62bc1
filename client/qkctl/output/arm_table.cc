#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/files/arm_kind.h"
#include "client/qkctl/output/analyze_view.h"
#include "client/qkctl/output/non_finite.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

const v1::Comparison* Find(const AnalysisResult& result,
                           const std::string& arm) {
  for (const v1::Comparison& comparison : result.comparisons) {
    if (comparison.arm() == arm) return &comparison;
  }
  return nullptr;
}

// Whether the arm's KL and flips say anything. A baseline's own say that it is
// the one; they are shown if it is undisrupted and other arms are compared with
// it.
bool IsCompared(const AnalysisResult& result, const v1::Arm& arm,
                const v1::Comparison& comparison) {
  if (comparison.baseline() != arm.name()) return true;
  return IsUndisrupted(arm) && result.comparisons.size() > 1;
}

int64_t Replaced(const AnalysisResult& result, const std::string& arm) {
  int64_t replaced = 0;
  for (const v1::Applied& applied : result.applied) {
    if (applied.arm() == arm) replaced += applied.replaced();
  }
  return replaced;
}

}  // namespace

std::string ArmHeading(int width) {
  return absl::StrFormat("%-*s  %10s  %9s  %9s  %9s", width, "arm", "log-prob ",
                         "KL", "flips", "replaced");
}

std::string ArmLine(const AnalysisResult& result, const v1::Arm& arm,
                    int width) {
  std::string line = absl::StrFormat("%-*s", width, arm.name());
  const v1::Comparison* comparison = Find(result, arm.name());
  if (comparison != nullptr) {
    // A single token has no log-probability, because no token precedes it.
    const bool has_mean = comparison->token_logprob_size() > 1;
    const bool compared = IsCompared(result, arm, *comparison);
    absl::StrAppendFormat(
        &line, "  %10s  %9s  %9s",
        has_mean
            ? absl::StrCat(absl::StrFormat("%.4f", comparison->mean_logprob()),
                           IsUndisrupted(arm) ? " " : "*")
            : "- ",
        compared ? absl::StrFormat("%.4f", comparison->mean_kl()) : "-",
        compared
            ? absl::StrCat(comparison->top1_flips(), "/",
                           comparison->kl_size() - comparison->non_finite())
            : "-");
  } else {
    absl::StrAppendFormat(&line, "  %10s  %9s  %9s", "-", "-", "-");
  }
  absl::StrAppendFormat(&line, "  %9d\n", Replaced(result, arm.name()));
  return line;
}

namespace {

// The largest ratio and the number of massive entries of one point, over all
// layers.
struct PointTotals {
  int64_t massive = 0;
  float ratio = 0;
  int layers = 0;
};

std::string PointText(const char* name, const PointTotals& totals) {
  return absl::StrFormat("%s %d (largest %.1f x its head's mean)", name,
                         totals.massive, totals.ratio);
}

// Describes the massive values of the text in the baseline arm, before any
// disruption.
std::string WhereSentence(const AnalysisResult& result,
                          const std::string& baseline) {
  std::map<int, PointTotals> totals;
  for (const Tensor& tensor : result.tensors) {
    const v1::Layer& header = tensor.header;
    if (header.arm() != baseline || header.phase() != v1::PREFILL ||
        header.stage() != v1::BEFORE || !header.has_statistics() ||
        header.has_image()) {
      continue;
    }
    PointTotals& point = totals[header.point()];
    point.massive += header.statistics().massive_count();
    point.ratio = std::max(point.ratio, header.statistics().ratio());
    ++point.layers;
  }
  if (totals.count(v1::HOOK_ROT_Q) == 0 || totals.count(v1::HOOK_ROT_K) == 0 ||
      totals.count(v1::HOOK_V) == 0) {
    return "";
  }
  const PointTotals& q = totals[v1::HOOK_ROT_Q];
  const PointTotals& k = totals[v1::HOOK_ROT_K];
  const PointTotals& v = totals[v1::HOOK_V];
  const bool concentrated = q.massive + k.massive > 4 * v.massive;
  return absl::StrCat(
      "Massive values over the ", q.layers, " layers of arm ", baseline, ": ",
      PointText("Q", q), ", ", PointText("K", k), ", ", PointText("V", v),
      concentrated ? ": they sit in Q and K, hardly in V."
                   : ": on this prompt Q and K do not stand out from V.");
}

std::string EffectSentence(const AnalysisResult& result,
                           const v1::Comparison& baseline) {
  std::vector<std::string> parts;
  const v1::Comparison *most = nullptr, *least = nullptr;
  for (const v1::Comparison& arm : result.comparisons) {
    if (arm.arm() == baseline.arm()) continue;
    parts.push_back(absl::StrFormat(
        "%s moves it to %.2f (KL %.3f, %d of %d next tokens flip)", arm.arm(),
        arm.mean_logprob(), arm.mean_kl(), arm.top1_flips(), arm.kl_size()));
    if (most == nullptr || arm.mean_kl() > most->mean_kl()) most = &arm;
    if (least == nullptr || arm.mean_kl() < least->mean_kl()) least = &arm;
  }
  if (parts.empty()) return "";
  std::string sentence =
      absl::StrFormat("The prompt's mean log-probability is %.2f under %s; ",
                      baseline.mean_logprob(), baseline.arm());
  absl::StrAppend(&sentence, absl::StrJoin(parts, ", "));
  if (most != least && least->mean_kl() > 0) {
    absl::StrAppend(
        &sentence,
        absl::StrFormat(": %s disturbs the model %.1f times as much as %s.",
                        most->arm(), most->mean_kl() / least->mean_kl(),
                        least->arm()));
  } else {
    sentence += ".";
  }
  return sentence;
}

}  // namespace

std::string ArmTable(const AnalysisResult& result, const Console& console) {
  if (result.comparisons.empty() && result.applied.empty()) return "";
  const auto& arms = result.started.expanded().arms();
  int width = 3;
  bool any_disrupted = false;
  for (const v1::Arm& arm : arms) {
    width = std::max(width, static_cast<int>(arm.name().size()));
    any_disrupted = any_disrupted || !IsUndisrupted(arm);
  }
  const std::string baseline =
      result.comparisons.empty() ? "" : result.comparisons[0].baseline();
  std::string table = absl::StrCat("\n", console.Bold(ArmHeading(width)), "\n");
  for (const v1::Arm& arm : arms) {
    absl::StrAppend(&table, ArmLine(result, arm, width));
  }
  std::string notes;
  if (result.comparisons.size() == 1) {
    absl::StrAppend(&notes,
                    "log-prob: mean over the prompt's tokens, nats. replaced: "
                    "values written.\nKL and flips need another arm",
                    any_disrupted ? ", such as --arm clean" : "", ".\n");
  } else if (!baseline.empty()) {
    absl::StrAppend(&notes,
                    "log-prob: mean over the prompt's tokens, nats. KL: mean "
                    "over positions, nats, from ",
                    baseline,
                    ".\nflips: positions whose most likely next "
                    "token is not ",
                    baseline, "'s. replaced: values written.\n");
  }
  for (const std::string& line : NonFiniteLines(result)) {
    absl::StrAppend(&notes, line, "\n");
  }
  if (!baseline.empty() && any_disrupted) {
    absl::StrAppend(&notes,
                    "* not causal: a disruption uses statistics of the whole "
                    "prompt, so these values depend on later tokens.\n");
  }
  return absl::StrCat(table, console.Dim(notes));
}

std::string Explain(const AnalysisResult& result) {
  if (result.comparisons.empty() || !NonFiniteLines(result).empty()) return "";
  const std::string baseline = result.comparisons[0].baseline();
  const v1::Comparison* comparison = Find(result, baseline);
  if (comparison == nullptr) return "";
  const std::string where = WhereSentence(result, baseline);
  const std::string effect = EffectSentence(result, *comparison);
  if (where.empty() || effect.empty()) return "";
  return absl::StrCat(where, "\n", effect, "\n");
}

}  // namespace qk::client
