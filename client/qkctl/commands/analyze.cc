#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/qkctl/command.h"
#include "client/qkctl/commands/analyze_output.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/request_flags.h"

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
      ". At the end, per\narm: mean log-probability of the prompt, KL from the"
      " baseline, changed top-1\ntokens.\n\nExamples:\n"
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
      "\n--json: one line per event, protobuf's JSON mapping of AnalyzeEvent "
      "with 64-bit\nintegers as numbers. Norms are in the array layer.values "
      "(row-major, shape in\nlayer.shape), raw values in layer.data as base64. "
      "Bytes that are text are\nrepeated as *_utf8.\n");
}

ExitCode RunAnalyze(const std::vector<std::string>& arguments,
                    Context* context) {
  const std::string details = Details();
  CommandText text = kAnalyzeCommand.text;
  text.details = details.c_str();
  CommandLine line(text, context);
  RequestFlags request_flags;
  AnalyzeOutput output;
  bool detach = false, resumable = false;
  request_flags.AddTo(line.flags());
  output.AddTo(line.flags());
  line.flags()->Add(
      "detach", "start the request, print its id and exit; see qkctl result",
      &detach);
  line.flags()->Add("resumable",
                    "if the connection breaks, the request continues and the "
                    "stream is resumed",
                    &resumable);
  if (auto over = line.Parse(arguments, 0)) return *over;
  absl::StatusOr<v1::AnalyzeRequest> request = request_flags.Build();
  if (!request.ok()) return context->FailUsage(request.status());
  if (detach && output.saves()) {
    return context->FailUsage(absl::InvalidArgumentError(
        "--detach: has nothing to save yet; give --out and --manifest to qkctl "
        "result"));
  }
  const absl::Status writable = output.CheckFiles();
  if (!writable.ok()) return context->FailUsage(writable);

  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request->mutable_model())) {
    return *failed;
  }
  if (resumable) request->set_resumable(true);
  if (detach) {
    absl::StatusOr<std::string> id = client->Detach(*request, context->Call());
    if (!id.ok()) return context->Fail(id.status());
    context->console.Print(*id + "\n");
    return kExitOk;
  }
  return output.Run(
      context, /*kept=*/resumable, [&](const AnalyzeObserver& observer) {
        return client->Analyze(*request, observer, context->Call());
      });
}

}  // namespace

const Command kAnalyzeCommand = {
    {"analyze", "",
     "Run a prompt through every arm and show its massive values", ""},
    &RunAnalyze};

}  // namespace qk::client
