#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/request_flags.h"
#include "client/qkctl/output/non_finite.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// Removes control characters, which a model may generate and a terminal would
// obey.
std::string WithoutControls(const std::string& text) {
  std::string clean;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (!control || c == '\n' || c == '\t') clean += c;
  }
  return clean;
}

absl::StatusOr<v1::GenerateRequest> BuildRequest(
    const InputFlags& input_flags, const GenerateFlags& generate_flags,
    const std::vector<std::string>& arms) {
  v1::GenerateRequest request;
  absl::StatusOr<v1::Input> input = input_flags.Build();
  if (!input.ok()) return input.status();
  *request.mutable_input() = *std::move(input);
  absl::StatusOr<v1::GenerateSpec> spec = generate_flags.Build();
  if (!spec.ok()) return spec.status();
  *request.mutable_generate() = *std::move(spec);
  if (arms.size() > 1) {
    return absl::InvalidArgumentError(
        "--arm: generate takes only one; use analyze --max-new-tokens for "
        "several");
  }
  if (!arms.empty()) {
    absl::StatusOr<v1::Arm> arm = ParseArm(arms[0]);
    if (!arm.ok()) return arm.status();
    *request.mutable_arm() = *std::move(arm);
  }
  return request;
}

ExitCode RunGenerate(const std::vector<std::string>& arguments,
                     Context* context) {
  CommandLine line(kGenerateCommand.text, context);
  InputFlags input_flags;
  GenerateFlags generate_flags;
  std::optional<std::string> model;
  std::vector<std::string> arms;
  bool json = false, allow_non_finite = false;
  line.flags()->Section("Request");
  line.flags()->Add("model", "NAME", "default: the server's only model",
                    &model);
  line.flags()->Add("arm", "[NAME=]SPEC",
                    "a disruption, as in qkctl analyze --help", &arms);
  input_flags.AddTo(line.flags());
  generate_flags.AddTo(line.flags(), "64");
  line.flags()->Section("Output");
  line.flags()->Add("json", "print one JSON line per event", &json);
  AddAllowNonFinite(line.flags(), &allow_non_finite);
  if (auto over = line.Parse(arguments, 0)) return *over;
  absl::StatusOr<v1::GenerateRequest> request =
      BuildRequest(input_flags, generate_flags, arms);
  if (!request.ok()) return context->FailUsage(request.status());
  request->set_model(model.value_or(""));
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request->mutable_model())) {
    return *failed;
  }
  Console* console = &context->console;
  auto on_token = [&](const v1::Token& token) {
    console->Print(json ? absl::StrCat("{\"token\":", ToJson(token), "}\n")
                        : WithoutControls(token.text()));
  };
  absl::StatusOr<v1::GenerateFinished> finished =
      client->Generate(*request, on_token, context->Call());
  console->Print(json && finished.ok()
                     ? absl::StrCat("{\"finished\":", ToJson(*finished), "}\n")
                 : json ? ""
                        : "\n");
  if (!finished.ok()) return context->Fail(finished.status());
  const std::string bad = NonFiniteText(finished->summary().non_finite());
  if (bad.empty()) return kExitOk;
  return context->NonFinite(
      absl::StrCat("not finite (NaN or infinite): ", bad,
                   "; the generation ended after ",
                   finished->summary().generated_tokens(), " tokens"),
      allow_non_finite);
}

}  // namespace

const Command kGenerateCommand = {
    {"generate", "", "Continue a prompt, clean or disrupted",
     "Decoding is greedy unless --temperature is given.\n\nExamples:\n"
     "  qkctl generate --prompt 'The city of Paris is in' --max-new-tokens 20\n"
     "  qkctl generate --chat chatml --prompt 'Name three rivers.' "
     "--arm top_k:1\n"},
    &RunGenerate};

}  // namespace qk::client
