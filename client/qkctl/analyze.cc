#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/arm_spec.h"
#include "client/json_writer.h"
#include "client/qkctl/analyze_view.h"
#include "client/qkctl/command.h"
#include "client/qkctl/request_flags.h"
#include "client/saved_analysis.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

std::string Details() {
  return absl::StrCat(
      "Shows, layer by layer while the pass runs, how many values of Q, K and V"
      " are\nmassive, how far the largest stands above the mean of its head, "
      "and"
      " where it\nsits (head, dim, and the wavelength of its RoPE pair in "
      "tokens)"
      ". At the end, per\narm: mean log-probability of the prompt, KL to the"
      " baseline, changed top-1 tokens.\n\nExamples:\n"
      "  qkctl analyze --prompt 'The city of Paris is in'\n"
      "  qkctl analyze --model smollm2 --prompt 'The city of Paris is in' \\\n"
      "      --arm clean --arm top_k:1 --arm bottom_k:1 --layers 0-3,7\n"
      "  qkctl analyze --prompt-file p.txt --arm clean --arm big=threshold:5 "
      "\\\n"
      "      --out p.safetensors --manifest p.json\n"
      "  qkctl analyze --model qwen2-vl --image cat.png --vision-layers 0-3 "
      "\\\n"
      "      --prompt '<|vision_start|><|image_pad|><|vision_end|>What is it?' "
      "\\\n"
      "      --parse-special\n"
      "  echo hello | qkctl analyze --prompt - --json | jq .layer.layer\n\n",
      kArmHelp, ArmSpecHelp(),
      "\n--json: a line per event, protobuf's JSON mapping of AnalyzeEvent with"
      " 64-bit\nnumbers as numbers; norms are the array layer.values "
      "(row-major,"
      " shape in\nlayer.shape), raw values base64 in layer.data; text also as"
      " *_utf8.\n");
}

struct OutputFlags {
  bool all_arms = false, json = false, explain = false;
  std::optional<std::string> out, manifest;

  void AddTo(FlagSet* flags) {
    flags->Section("Output");
    flags->Add("all-arms", "rows of every arm, not of the first only",
               &all_arms);
    flags->Add("explain", "end with two sentences on what the numbers say",
               &explain);
    flags->Add("json", "a JSON line per event instead of the table", &json);
    flags->Add("out", "FILE", "save tensors and manifest as .safetensors",
               &out);
    flags->Add("manifest", "FILE", "save the manifest as JSON, for replay",
               &manifest);
  }
};

AnalyzeObserver JsonObserver(Console* console) {
  AnalyzeObserver observer;
  observer.on_event = [console](const v1::AnalyzeEvent& event) {
    console->Print(ToJson(event) + "\n");
  };
  observer.on_tensor = [console](int64_t seq, const Tensor& tensor) {
    console->Print(JsonOfTensor(seq, tensor) + "\n");
  };
  return observer;
}

AnalyzeObserver TableObserver(AnalyzeView* view) {
  AnalyzeObserver observer;
  observer.on_event = [view](const v1::AnalyzeEvent& event) {
    view->OnEvent(event);
  };
  observer.on_tensor = [view](int64_t, const Tensor& tensor) {
    view->OnTensor(tensor);
  };
  return observer;
}

void PrintGenerated(const AnalysisResult& result, Console* console) {
  for (const v1::ArmSummary& arm : result.finished.arms()) {
    if (arm.generated_tokens() == 0) continue;
    console->Print(
        absl::StrCat("\n",
                     console->Bold(absl::StrCat(
                         arm.arm(), ", ", arm.generated_tokens(), " tokens")),
                     ": ", Printable(arm.generated_text()), "\n"));
  }
}

absl::Status Save(const AnalysisResult& result, const OutputFlags& output) {
  if (output.out.has_value()) {
    absl::Status status = WriteSafetensors(result, *output.out);
    if (!status.ok()) return status;
  }
  if (output.manifest.has_value()) {
    return WriteManifest(result.finished.manifest(), *output.manifest);
  }
  return absl::OkStatus();
}

ExitCode RunAnalyze(const std::vector<std::string>& arguments,
                    Context* context) {
  const std::string details = Details();
  CommandText text = kAnalyzeCommand.text;
  text.details = details.c_str();
  CommandLine line(text, context);
  RequestFlags request_flags;
  OutputFlags output;
  request_flags.AddTo(line.flags());
  output.AddTo(line.flags());
  if (auto over = line.Parse(arguments, 0)) return *over;
  absl::StatusOr<v1::AnalyzeRequest> request = request_flags.Build();
  if (!request.ok()) return context->FailUsage(request.status());

  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request->mutable_model())) {
    return *failed;
  }
  AnalyzeView view({.all_arms = output.all_arms}, &context->console);
  AnalyzeObserver observer =
      output.json ? JsonObserver(&context->console) : TableObserver(&view);
  observer.keep_tensors = output.out.has_value() || output.explain;
  absl::StatusOr<AnalysisResult> result =
      client->Analyze(*request, observer, context->Call());
  if (!result.ok()) return context->Fail(result.status());
  if (!output.json) {
    view.Finish(*result);
    PrintGenerated(*result, &context->console);
    if (output.explain) context->console.Print("\n" + Explain(*result));
  }
  absl::Status saved = Save(*result, output);
  return saved.ok() ? kExitOk : context->Fail(saved);
}

}  // namespace

const Command kAnalyzeCommand = {
    {"analyze", "",
     "Run a prompt through every arm and show its massive values", ""},
    &RunAnalyze};

}  // namespace qk::client
