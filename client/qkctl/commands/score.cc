#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/jsonl.h"
#include "engine/base/json_string.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// Pairs per call: below the server's default limit, and few enough that the
// server's deadline suffices.
constexpr size_t kPairsPerCall = 256;
// Bytes of pairs per call, unless a single pair has more. The answer has 5
// bytes for each token, and a token has a byte or more, so it stays below 4
// MiB.
constexpr size_t kBytesPerCall = 512 * 1024;

struct ScoreFlags {
  std::optional<std::string> model, jsonl;
  std::vector<std::string> contexts, continuations, arms;
  bool json = false, allow_non_finite = false;

  void AddTo(FlagSet* flags) {
    flags->Section("Request");
    flags->Add("model", "NAME", "default: the server's only model", &model);
    flags->Add("context", "TEXT",
               "text that precedes the continuation; may be repeated",
               &contexts);
    flags->Add("continuation", "TEXT",
               "text to score: one per --context, or several for a single "
               "--context",
               &continuations);
    flags->Add("jsonl", "FILE", "file with pairs; - reads standard input",
               &jsonl);
    flags->Add("arm", "[NAME=]SPEC",
               "score under this arm; may be repeated (default: clean)", &arms);
    flags->Section("Output");
    flags->Add("json", "print one JSON line per pair and arm", &json);
    AddAllowNonFinite(flags, &allow_non_finite);
  }
};

absl::Status ReadPairs(const std::string& path,
                       std::vector<v1::ScorePair>* pairs) {
  return ReadJsonLines(path, [&](const JsonLine& line) {
    v1::ScorePair pair;
    absl::Status status =
        InputOf(line.fields, "context", pair.mutable_context());
    if (status.ok()) {
      status =
          InputOf(line.fields, "continuation", pair.mutable_continuation());
    }
    if (status.ok()) pairs->push_back(std::move(pair));
    return status;
  });
}

absl::StatusOr<std::vector<v1::ScorePair>> BuildPairs(const ScoreFlags& flags) {
  std::vector<v1::ScorePair> pairs;
  if (flags.jsonl.has_value()) {
    absl::Status status = ReadPairs(*flags.jsonl, &pairs);
    if (!status.ok()) return status;
  }
  const size_t contexts = flags.contexts.size();
  const size_t continuations = flags.continuations.size();
  if (contexts != continuations && contexts != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        contexts, " --context and ", continuations,
        " --continuation; give the same number of each, or one --context"));
  }
  for (size_t i = 0; i < continuations; ++i) {
    v1::ScorePair pair;
    pair.mutable_context()->set_text(flags.contexts[contexts == 1 ? 0 : i]);
    pair.mutable_continuation()->set_text(flags.continuations[i]);
    pairs.push_back(std::move(pair));
  }
  if (pairs.empty()) {
    return absl::InvalidArgumentError(
        "nothing to score; give --context and --continuation, or --jsonl");
  }
  return pairs;
}

void PrintResult(const std::string& arm, size_t pair,
                 const v1::ScoreResult& result, bool json, Console* console) {
  if (json) {
    console->Print(absl::StrCat("{\"arm\":", JsonString(arm), ",\"pair\":",
                                pair, ",\"result\":", ToJson(result), "}\n"));
    return;
  }
  console->Print(absl::StrFormat(
      "%-20s %6d  %12.4f  %-6s  %6d\n", arm, pair, result.logprob(),
      result.is_greedy() ? "yes" : "no", result.continuation_tokens()));
}

// The end of the pairs that go into one call with pairs[begin].
size_t EndOfCall(const std::vector<v1::ScorePair>& pairs, size_t begin) {
  size_t bytes = 0, end = begin;
  while (end < pairs.size() && end - begin < kPairsPerCall) {
    bytes += pairs[end].ByteSizeLong();
    if (bytes > kBytesPerCall && end > begin) break;
    ++end;
  }
  return end;
}

// Adds to `non_finite` the number of pairs whose log-probability is not finite.
absl::Status ScoreArm(AnalysisClient* client, const std::string& model,
                      const v1::Arm& arm,
                      const std::vector<v1::ScorePair>& pairs, bool json,
                      Context* context, int64_t* non_finite) {
  for (size_t begin = 0, end = 0; begin < pairs.size(); begin = end) {
    end = EndOfCall(pairs, begin);
    v1::ScoreRequest request;
    request.set_model(model);
    *request.mutable_arm() = arm;
    for (size_t i = begin; i < end; ++i) *request.add_pairs() = pairs[i];
    absl::StatusOr<v1::ScoreResponse> response =
        client->Score(request, context->Call());
    if (!response.ok()) return response.status();
    if (static_cast<size_t>(response->results_size()) != end - begin) {
      return absl::InternalError(
          absl::StrCat("the server sent ", response->results_size(),
                       " results for ", end - begin, " pairs"));
    }
    for (size_t i = begin; i < end; ++i) {
      const v1::ScoreResult& result =
          response->results(static_cast<int>(i - begin));
      if (!std::isfinite(result.logprob())) ++*non_finite;
      PrintResult(arm.name(), i, result, json, &context->console);
    }
  }
  return absl::OkStatus();
}

ExitCode RunScore(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kScoreCommand.text, context);
  ScoreFlags flags;
  flags.AddTo(line.flags());
  if (auto over = line.Parse(arguments, 0)) return *over;
  absl::StatusOr<std::vector<v1::ScorePair>> pairs = BuildPairs(flags);
  if (!pairs.ok()) return context->FailUsage(pairs.status());
  if (flags.arms.empty()) flags.arms.push_back("clean");
  std::vector<v1::Arm> arms;
  for (const std::string& text : flags.arms) {
    absl::StatusOr<v1::Arm> arm = ParseArm(text);
    if (!arm.ok()) return context->FailUsage(arm.status());
    arms.push_back(*std::move(arm));
  }
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  std::string model = flags.model.value_or("");
  if (auto failed = ChooseModel(client.get(), context, &model)) return *failed;
  if (!flags.json) {
    context->console.Print(context->console.Bold(absl::StrFormat(
                               "%-20s %6s  %12s  %-6s  %6s", "arm", "pair",
                               "log-prob", "greedy", "tokens")) +
                           "\n");
  }
  int64_t non_finite = 0;
  for (const v1::Arm& arm : arms) {
    absl::Status status = ScoreArm(client.get(), model, arm, *pairs, flags.json,
                                   context, &non_finite);
    if (!status.ok()) return context->Fail(status);
  }
  if (non_finite == 0) return kExitOk;
  return context->NonFinite(
      absl::StrCat("not finite (NaN or infinite): the log-probabilities of ",
                   non_finite, " of ", pairs->size() * arms.size(), " scores"),
      flags.allow_non_finite);
}

}  // namespace

const Command kScoreCommand = {
    {"score", "", "Score continuations by log-probability",
     "Each line of --jsonl is {\"context\": TEXT, \"continuation\": TEXT}, or "
     "has\ncontext_ids and continuation_ids with token ids. log-prob is the "
     "sum over the\ncontinuation's tokens, in nats. greedy says whether each "
     "of them was the most\nlikely token.\n\nUnder a disrupted arm the "
     "continuation's tokens count as generated: they get the\n"
     "log-probabilities that generate would give them. A clean arm is one pass "
     "over\nthe whole text.\n\nExamples:\n"
     "  qkctl score --context 'The city of Paris is in' "
     "--continuation ' France'\n"
     "  qkctl score --jsonl pairs.jsonl --arm clean --arm top_k:1 --json\n"},
    &RunScore};

}  // namespace qk::client
