#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/jsonl.h"
#include "client/qkctl/flags/request_flags.h"
#include "client/qkctl/output/analyze_view.h"
#include "client/qkctl/output/non_finite.h"
#include "engine/base/json_string.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

struct Prompts {
  std::vector<v1::AnalyzeManyPrompt> list;
  std::set<std::string> numbers;  // the ids that the file has as integers
};

absl::Status ReadPrompts(const std::string& path, Prompts* prompts) {
  return ReadJsonLines(path, [&](const JsonLine& line) {
    v1::AnalyzeManyPrompt prompt;
    absl::StatusOr<JsonId> id = IdOf(line);
    if (!id.ok()) return id.status();
    if (id->is_number) prompts->numbers.insert(id->text);
    prompt.set_id(std::move(id->text));
    absl::Status status =
        InputOf(line.fields, "prompt", prompt.mutable_input());
    if (status.ok()) prompts->list.push_back(std::move(prompt));
    return status;
  });
}

// Ids are printed as the file has them: integers as integers.
ManyObserver JsonObserver(const std::set<std::string>& numbers,
                          Console* console) {
  const auto print = [&numbers, console](const std::string& id,
                                         const char* kind,
                                         const std::string& json) {
    console->Print(
        absl::StrCat("{\"id\":", numbers.count(id) > 0 ? id : JsonString(id),
                     ",\"", kind, "\":", json, "}\n"));
  };
  ManyObserver observer;
  observer.on_event = [print](const std::string& id,
                              const v1::AnalyzeEvent& event) {
    print(id, "event", ToJson(event));
  };
  observer.on_tensor = [print](const std::string& id, int64_t seq,
                               const Tensor& tensor) {
    print(id, "event", TensorToJson(seq, tensor));
  };
  observer.on_prompt = [print](const std::string& id,
                               const absl::StatusOr<AnalysisResult>& result) {
    if (result.ok()) return;
    v1::ManyPromptError error;
    error.set_id(id);
    error.set_code(result.status().raw_code());
    error.set_message(std::string(result.status().message()));
    print(id, "error", ToJson(error));
  };
  return observer;
}

// Prints one line per prompt and arm.
class PromptTable {
 public:
  PromptTable(const v1::AnalyzeRequest& request,
              const std::vector<v1::AnalyzeManyPrompt>& prompts,
              Console* console)
      : console_(console), prompts_(prompts.size()) {
    for (const v1::AnalyzeManyPrompt& prompt : prompts) {
      id_width_ =
          std::max(id_width_, static_cast<int>(Printable(prompt.id()).size()));
    }
    for (const v1::Arm& arm : request.arms()) {
      arm_width_ = std::max(arm_width_, static_cast<int>(arm.name().size()));
    }
    console_->Print(
        console_->Bold(absl::StrFormat("%-*s  %6s  %s", id_width_, "prompt",
                                       "tokens", ArmHeading(arm_width_))) +
        "\n");
  }

  void Add(const std::string& id,
           const absl::StatusOr<AnalysisResult>& result) {
    std::string name = absl::StrFormat("%-*s", id_width_, Printable(id));
    if (result.ok()) {
      const v1::Started& started = result->started;
      std::string lines;
      for (const v1::Arm& arm : started.expanded().arms()) {
        absl::StrAppendFormat(&lines, "%s  %6d  %s", name,
                              started.token_ids_size(),
                              ArmLine(*result, arm, arm_width_));
      }
      console_->Print(lines);
    } else {
      console_->Print(absl::StrCat(
          name, "  ",
          console_->Bad(absl::StrCat(
              "failed: ", Printable(std::string(result.status().message())))),
          "\n"));
    }
    console_->Progress(absl::StrCat(++done_, " of ", prompts_, " prompts"));
  }

 private:
  Console* console_;
  size_t prompts_, done_ = 0;
  int id_width_ = 6, arm_width_ = 3;
};

std::string MeanAndDeviation(const v1::Moments& moments) {
  // In this order NaN stays NaN.
  return absl::StrFormat("%.1f +-%.1f", moments.mean(),
                         std::sqrt(std::max(moments.variance(), 0.0)));
}

// One line per arm, layer and point.
std::string AggregateTable(const std::vector<v1::AggregateEntry>& entries,
                           const Console& console) {
  int arm_width = 3;
  for (const v1::AggregateEntry& entry : entries) {
    arm_width = std::max(arm_width, static_cast<int>(entry.arm().size()));
  }
  std::string table =
      absl::StrCat("\n",
                   console.Bold(absl::StrFormat(
                       "%-*s  %8s  %-20s  %7s  %16s  %16s", arm_width, "arm",
                       "layer", "point", "count", "massive", "ratio")),
                   "\n");
  for (const v1::AggregateEntry& entry : entries) {
    std::string point =
        absl::AsciiStrToLower(v1::HookPoint_Name(entry.point()));
    if (entry.stage() == v1::AFTER) point += ".after";
    absl::StrAppendFormat(
        &table, "%-*s  %8s  %-20s  %7d  %16s  %16s\n", arm_width, entry.arm(),
        absl::StrCat(entry.vision() ? "vision." : "", entry.layer()), point,
        entry.count(),
        entry.non_finite_count() > 0 ? "nan"
                                     : MeanAndDeviation(entry.massive_count()),
        entry.non_finite_count() > 0 ? "nan" : MeanAndDeviation(entry.ratio()));
  }
  absl::StrAppend(
      &table, console.Dim("massive, ratio: mean and standard deviation over "
                          "the prompts.\n"));
  return table;
}

struct ManyFlags {
  RequestFlags request{RequestFlags::Prompt::kNone};
  std::optional<std::string> jsonl;
  bool aggregate = false, json = false;

  void AddTo(FlagSet* flags) {
    flags->Section("Prompts");
    flags->Add("jsonl", "FILE",
               "file with one prompt per line; - reads standard input", &jsonl);
    flags->Add("aggregate",
               "show means and variances over all prompts instead of each "
               "prompt's values",
               &aggregate);
    request.AddTo(flags);
    flags->Section("Output");
    flags->Add("json", "a JSON line per event instead of the table", &json);
  }

  absl::Status Build(v1::AnalyzeManySpec* spec, Prompts* prompts) const {
    absl::StatusOr<v1::AnalyzeRequest> built = request.Build();
    if (!built.ok()) return built.status();
    *spec->mutable_request() = *std::move(built);
    if (aggregate) spec->set_aggregate(true);
    if (!jsonl.has_value()) {
      return absl::InvalidArgumentError("give the prompts: --jsonl FILE");
    }
    return ReadPrompts(*jsonl, prompts);
  }
};

void PrintEnd(const ManyResult& result, size_t prompts, bool json,
              Console* console) {
  if (json) {
    for (const v1::AggregateEntry& entry : result.aggregate) {
      console->Print(absl::StrCat("{\"aggregate\":", ToJson(entry), "}\n"));
    }
    v1::ManyFinished finished;
    finished.set_prompts(static_cast<int64_t>(prompts));
    finished.set_failed(result.failed);
    console->Print(absl::StrCat("{\"finished\":", ToJson(finished), "}\n"));
    return;
  }
  if (!result.aggregate.empty()) {
    console->Print(AggregateTable(result.aggregate, *console));
  }
  console->Print(absl::StrCat(prompts,
                              prompts == 1 ? " prompt, " : " prompts, ",
                              result.failed, " failed\n"));
}

// Says on standard error how much of the answer is not finite.
class NonFiniteCount {
 public:
  void Add(const absl::StatusOr<AnalysisResult>& result) {
    if (result.ok() && !NonFiniteLines(*result).empty()) ++prompts_;
  }

  void Report(const ManyResult& result, Context* context) const {
    int64_t norms = 0;
    for (const v1::AggregateEntry& entry : result.aggregate) {
      norms += entry.non_finite_count();
    }
    if (prompts_ > 0) {
      context->NonFinite(
          absl::StrCat("not finite (NaN or infinite): values of ", prompts_,
                       prompts_ == 1 ? " prompt" : " prompts"),
          /*allowed=*/true);
    }
    if (norms > 0) {
      context->NonFinite(absl::StrCat("not finite (NaN or infinite): ", norms,
                                      " norms of the aggregate"),
                         /*allowed=*/true);
    }
  }

 private:
  int64_t prompts_ = 0;
};

ExitCode RunAnalyzeMany(const std::vector<std::string>& arguments,
                        Context* context) {
  CommandLine line(kAnalyzeManyCommand.text, context);
  ManyFlags flags;
  flags.AddTo(line.flags());
  if (auto over = line.Parse(arguments, 0)) return *over;
  v1::AnalyzeManySpec spec;
  Prompts prompts;
  const absl::Status built = flags.Build(&spec, &prompts);
  if (!built.ok()) return context->FailUsage(built);

  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed = ChooseModel(client.get(), context,
                                spec.mutable_request()->mutable_model())) {
    return *failed;
  }
  std::optional<PromptTable> table;
  if (!flags.json) {
    table.emplace(spec.request(), prompts.list, &context->console);
  }
  ManyObserver observer;
  if (flags.json) observer = JsonObserver(prompts.numbers, &context->console);
  absl::Status first_failure;
  NonFiniteCount non_finite;
  observer.on_prompt = [&, print = observer.on_prompt](
                           const std::string& id,
                           absl::StatusOr<AnalysisResult> result) {
    first_failure.Update(result.status());
    non_finite.Add(result);
    if (table.has_value()) table->Add(id, result);
    if (print) print(id, std::move(result));
  };
  observer.keep_tensors = false;
  const absl::StatusOr<ManyResult> result =
      client->AnalyzeMany(spec, prompts.list, observer, context->Call());
  if (!result.ok()) return context->Fail(result.status());
  PrintEnd(*result, prompts.list.size(), flags.json, &context->console);
  non_finite.Report(*result, context);
  return ExitCodeOf(first_failure);
}

}  // namespace

const Command kAnalyzeManyCommand = {
    {"analyze-many", "", "Run many prompts through every arm, in one call",
     "Each line of --jsonl is {\"prompt\": TEXT} or {\"prompt_ids\": [IDS]}, "
     "with an\noptional \"id\": NAME, a string or an integer (default: the "
     "line's "
     "number). The server\nruns the prompts together. If a prompt fails, its "
     "error is shown and "
     "the others continue; the exit\ncode is that of the first failure.\n\n"
     "--json: {\"id\": NAME, \"event\": AnalyzeEvent} as in analyze --json, "
     "{\"id\": NAME,\n\"error\": ManyPromptError}, {\"aggregate\": "
     "AggregateEntry} and {\"finished\": ...}.\n\nExamples:\n"
     "  qkctl analyze-many --jsonl prompts.jsonl --arm clean --arm top_k:1\n"
     "  qkctl analyze-many --jsonl prompts.jsonl --aggregate --json\n"},
    &RunAnalyzeMany};

}  // namespace qk::client
