#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/files/file_io.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/text_parse.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// In the order of the table's columns.
constexpr v1::HookPoint kPoints[] = {v1::HOOK_ROT_Q, v1::HOOK_ROT_K, v1::HOOK_V,
                                     v1::HOOK_Q, v1::HOOK_K};

std::string BaselineLine(const v1::Baseline& baseline) {
  return absl::StrFormat(
      "%s: %d %s, %d matrices, saved %s, weights' SHA-256 %s, %s\n",
      Printable(baseline.model()), baseline.prompts(),
      baseline.prompts() == 1 ? "prompt" : "prompts", baseline.matrices(),
      absl::FormatTime("%Y-%m-%d %H:%M:%S",
                       absl::FromUnixMillis(baseline.created_unix_ms()),
                       absl::LocalTimeZone()),
      Printable(baseline.weights_sha256()),
      baseline.kept() ? "kept in a file" : "kept until the model is unloaded");
}

// One line per layer.
std::string DriftTable(const v1::Baseline& baseline, const Console& console) {
  if (baseline.drifts().empty()) {
    return "No undisrupted prompt has run since it was saved.\n";
  }
  std::map<int, std::map<int, double>> layers;
  for (const v1::BaselineDrift& drift : baseline.drifts()) {
    layers[drift.layer()][drift.point()] = drift.drift();
  }
  std::string table =
      absl::StrCat(console.Bold(absl::StrFormat(
                       "%5s  %9s  %9s  %9s  %9s  %9s", "layer", "hook_rot_q",
                       "hook_rot_k", "hook_v", "hook_q", "hook_k")),
                   "\n");
  for (const auto& [layer, drifts] : layers) {
    absl::StrAppendFormat(&table, "%5d", layer);
    for (v1::HookPoint point : kPoints) {
      const auto it = drifts.find(point);
      absl::StrAppendFormat(
          &table, "  %9s",
          it == drifts.end() ? "-" : absl::StrFormat("%.5f", it->second));
    }
    table += '\n';
  }
  absl::StrAppend(&table,
                  console.Dim("1 - cosine of the last undisrupted prompt's "
                              "norms / mean of their head and the "
                              "baseline's.\n"));
  return table;
}

// The prompts of a file: its lines, without those that are empty.
absl::StatusOr<std::vector<v1::AnalyzeManyPrompt>> ReadPrompts(
    const std::string& path) {
  const absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return content.status();
  std::vector<v1::AnalyzeManyPrompt> prompts;
  int number = 0;
  for (const std::string& text : SplitText(*content, "\n")) {
    ++number;
    const absl::string_view line = absl::StripSuffix(text, "\r");
    if (line.empty()) continue;
    v1::AnalyzeManyPrompt& prompt = prompts.emplace_back();
    prompt.set_id(absl::StrCat("line ", number));
    prompt.mutable_input()->set_text(std::string(line));
  }
  if (prompts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--file: ", path, " has no prompts"));
  }
  return prompts;
}

// Runs the prompts; their mean becomes the baseline.
absl::Status SaveOfPrompts(const std::string& model,
                           const std::vector<v1::AnalyzeManyPrompt>& prompts,
                           AnalysisClient* client, Context* context) {
  v1::AnalyzeManySpec spec;
  spec.mutable_request()->set_model(model);
  for (v1::HookPoint point : kPoints) {
    spec.mutable_request()->mutable_capture()->add_points(point);
  }
  spec.set_aggregate(true);
  spec.set_save_baseline(true);
  size_t done = 0;
  ManyObserver observer;
  observer.keep_tensors = false;
  observer.on_prompt = [&](const std::string& id,
                           const absl::StatusOr<AnalysisResult>& result) {
    if (!result.ok()) {
      context->console.Error(
          absl::StrCat(id, ": ", Printable(result.status().ToString())));
    }
    context->console.Progress(
        absl::StrCat(++done, " of ", prompts.size(), " prompts"));
  };
  const auto result =
      client->AnalyzeMany(spec, prompts, observer, context->Call());
  context->console.ClearProgress();
  return result.status();
}

ExitCode Show(const std::string& model, AnalysisClient* client,
              Context* context) {
  const auto list = client->ListBaselines(model, context->Call());
  if (!list.ok()) return context->Fail(list.status());
  if (!model.empty() && list->baselines().empty()) {
    return context->Fail(absl::NotFoundError(
        absl::StrCat("model '", model, "' has no baseline, or is not loaded")));
  }
  for (const v1::Baseline& baseline : list->baselines()) {
    context->console.Print(BaselineLine(baseline));
    if (!model.empty()) {
      context->console.Print(DriftTable(baseline, context->console));
    }
  }
  return kExitOk;
}

ExitCode Save(const std::string& model, const std::optional<std::string>& file,
              AnalysisClient* client, Context* context) {
  if (!file.has_value()) {
    const auto saved = client->SaveBaseline(model, context->Call());
    if (!saved.ok()) return context->Fail(saved.status());
    context->console.Print(BaselineLine(*saved));
    return kExitOk;
  }
  const auto prompts = ReadPrompts(*file);
  if (!prompts.ok()) return context->FailUsage(prompts.status());
  const absl::Status saved = SaveOfPrompts(model, *prompts, client, context);
  if (!saved.ok()) return context->Fail(saved);
  const auto list = client->ListBaselines(model, context->Call());
  if (!list.ok()) return context->Fail(list.status());
  for (const v1::Baseline& baseline : list->baselines()) {
    context->console.Print(BaselineLine(baseline));
  }
  return kExitOk;
}

ExitCode RunBaseline(const std::vector<std::string>& arguments,
                     Context* context) {
  CommandLine line(kBaselineCommand.text, context);
  std::optional<std::string> file;
  line.flags()->Section("Saving");
  line.flags()->Add("file", "FILE",
                    "make the baseline of exactly these prompts, one per line; "
                    "- reads standard input",
                    &file);
  if (auto over = line.Parse(arguments, 2)) return *over;
  const std::vector<std::string>& words = line.words();
  const std::string action = words.empty() ? "" : words[0];
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (action == "save" && words.size() == 2) {
    return Save(words[1], file, client.get(), context);
  }
  if (action == "show" && !file.has_value()) {
    return Show(words.size() == 2 ? words[1] : "", client.get(), context);
  }
  if (action == "remove" && words.size() == 2 && !file.has_value()) {
    const absl::Status removed =
        client->RemoveBaseline(words[1], context->Call());
    return removed.ok() ? kExitOk : context->Fail(removed);
  }
  return context->FailUsage(absl::InvalidArgumentError(
      "baseline: expected save MODEL, show [MODEL] or remove MODEL; see qkctl "
      "baseline --help"));
}

}  // namespace

const Command kBaselineCommand = {
    {"baseline", "save MODEL | show [MODEL] | remove MODEL",
     "Say what a model's Q, K and V look like when all is well",
     "For operators. save freezes the mean of what the model has shown in "
     "undisrupted\nprompts since it was loaded or, with --file, what it shows "
     "in those prompts. From\nthen on the metric "
     "qkscope_activation_drift_ratio says how far each prompt is\nfrom it, and "
     "show MODEL how far the last one is. A server with baseline_dir keeps\n"
     "baselines in files; without, they go when the model is unloaded.\n\n"
     "Examples:\n  qkctl baseline save smollm2\n"
     "  qkctl baseline save smollm2 --file prompts.txt\n"
     "  qkctl baseline show smollm2\n"},
    &RunBaseline};

}  // namespace qk::client
