#include "client/qkctl/commands/self_test.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/files/replay.h"
#include "client/qkctl/output/non_finite.h"
#include "engine/base/monotonic.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr int kTokens = 16;

v1::AnalyzeRequest Request(const v1::ModelInfo& model) {
  v1::AnalyzeRequest request;
  request.set_model(model.name());
  request.set_client_tag("qkctl doctor");
  const int tokens = std::min(kTokens, model.context_length());
  for (int i = 0; i < tokens; ++i) {
    request.mutable_input()->mutable_token_ids()->add_ids(
        (7 * i + 1) % std::max(1, model.vocab_size()));
  }
  request.add_arms()->set_name("clean");
  request.add_arms()->set_name("again");
  v1::Arm* arm = request.add_arms();
  arm->set_name("top_k:1");
  arm->add_disruptions()->mutable_top_k()->set_k(1);
  request.mutable_compare()->set_baseline("clean");
  return request;
}

// The digests of one arm, by (phase, layer, point, stage).
std::map<std::tuple<int, int, int, int>, std::string> Digests(
    const v1::Manifest& manifest, const std::string& arm) {
  std::map<std::tuple<int, int, int, int>, std::string> digests;
  for (const v1::PayloadDigest& digest : manifest.digests()) {
    if (digest.arm() != arm) continue;
    digests[{digest.phase(), digest.layer(), digest.point(), digest.stage()}] =
        digest.sha256();
  }
  return digests;
}

absl::Status CheckArms(const AnalysisResult& result) {
  const v1::Manifest& manifest = result.finished.manifest();
  if (result.tensors.empty()) {
    return absl::InternalError("the analysis captured nothing");
  }
  if (Digests(manifest, "clean") != Digests(manifest, "again")) {
    return absl::InternalError(
        "two equal arms of one batch have different bytes");
  }
  for (const v1::Comparison& comparison : result.comparisons) {
    if (comparison.arm() == "again" && comparison.mean_kl() != 0) {
      return absl::InternalError(absl::StrCat(
          "the KL divergence of two equal arms is ", comparison.mean_kl()));
    }
  }
  const auto disrupted = std::any_of(
      result.applied.begin(), result.applied.end(),
      [](const v1::Applied& applied) { return applied.replaced() > 0; });
  if (!disrupted) return absl::InternalError("top_k:1 replaced no value");
  const std::vector<std::string> lines = NonFiniteLines(result);
  if (!lines.empty()) return absl::OutOfRangeError(lines[0]);
  return absl::OkStatus();
}

absl::Status CheckAgain(const AnalysisResult& first,
                        const AnalysisResult& second) {
  SavedAnalysis before;
  before.tensors = first.tensors;
  before.comparisons = first.comparisons;
  before.manifest = first.finished.manifest();
  const ReplayReport report = CompareRuns(before, second);
  if (report.verdict == ReplayVerdict::kIdentical) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the same request gave other bytes: ",
                   report.lines.empty() ? "" : report.lines[0]));
}

}  // namespace

absl::StatusOr<std::string> TestAnalyses(AnalysisClient* client,
                                         const v1::ModelInfo& model,
                                         const CallOptions& options) {
  const v1::AnalyzeRequest request = Request(model);
  const absl::Time begin = MonotonicNow();
  const absl::StatusOr<AnalysisResult> first =
      client->Analyze(request, {}, options);
  if (!first.ok()) return first.status();
  const absl::Duration took = MonotonicNow() - begin;
  if (absl::Status status = CheckArms(*first); !status.ok()) return status;
  const absl::StatusOr<AnalysisResult> second =
      client->Analyze(request, {}, options);
  if (!second.ok()) return second.status();
  if (absl::Status status = CheckAgain(*first, *second); !status.ok()) {
    return status;
  }
  return absl::StrFormat(
      "%d tokens, 3 arms, %d tensors in %.0f ms; equal arms and a second run "
      "have equal bytes",
      first->finished.prompt_tokens(), first->tensors.size(),
      absl::ToDoubleMilliseconds(took));
}

absl::StatusOr<std::string> TestKeptResults(AnalysisClient* client,
                                            const v1::ModelInfo& model,
                                            const CallOptions& options) {
  const absl::StatusOr<std::string> id =
      client->Detach(Request(model), options);
  if (!id.ok()) return id.status();
  const absl::StatusOr<AnalysisResult> result =
      client->FetchResult(*id, {}, options);
  // The result is deleted even if it was not what it should be.
  const absl::Status deleted = client->Cancel(*id, options).status();
  if (!result.ok()) return result.status();
  if (absl::Status status = CheckArms(*result); !status.ok()) return status;
  if (!deleted.ok()) return deleted;
  return "a detached analysis came back whole";
}

}  // namespace qk::client
