#include "client/qkctl/commands/analyze_output.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/files/file_io.h"
#include "client/files/json_writer.h"
#include "client/files/saved_analysis.h"
#include "client/qkctl/output/analyze_view.h"
#include "client/qkctl/output/non_finite.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

AnalyzeObserver JsonObserver(Console* console) {
  AnalyzeObserver observer;
  observer.on_event = [console](const v1::AnalyzeEvent& event) {
    console->Print(ToJson(event) + "\n");
  };
  observer.on_tensor = [console](int64_t seq, const Tensor& tensor) {
    console->Print(TensorToJson(seq, tensor) + "\n");
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

absl::Status Save(const AnalysisResult& result,
                  const AnalyzeOutput::Files& output) {
  if (output.out.has_value()) {
    absl::Status status = WriteSafetensors(result, *output.out);
    if (!status.ok()) return status;
  }
  if (output.manifest.has_value()) {
    return WriteManifest(result.finished.manifest(), *output.manifest);
  }
  return absl::OkStatus();
}

}  // namespace

void AnalyzeOutput::AddTo(FlagSet* flags) {
  flags->Section("Output");
  flags->Add("all-arms", "show the rows of all arms, not only of the first",
             &all_arms_);
  flags->Add("explain", "end with two sentences that explain the numbers",
             &explain_);
  flags->Add("json", "print one JSON line per event instead of the table",
             &json_);
  flags->Add("out", "FILE", "save tensors and manifest as .safetensors",
             &files_.out);
  flags->Add("manifest", "FILE", "save the manifest as JSON, for replay",
             &files_.manifest);
}

absl::Status AnalyzeOutput::CheckFiles() const {
  for (const auto& path : {files_.out, files_.manifest}) {
    if (!path.has_value()) continue;
    const absl::Status status = CheckWritable(*path);
    if (!status.ok()) return status;
  }
  if (files_.out.has_value() && files_.manifest.has_value() &&
      IsSameFile(*files_.out, *files_.manifest)) {
    return absl::InvalidArgumentError(
        "--out and --manifest: name the same file");
  }
  return absl::OkStatus();
}

ExitCode AnalyzeOutput::Run(Context* context, bool kept,
                            const Call& call) const {
  AnalyzeView view({.all_arms = all_arms_}, &context->console);
  AnalyzeObserver observer =
      json_ ? JsonObserver(&context->console) : TableObserver(&view);
  observer.keep_tensors = files_.out.has_value() || explain_;
  std::string id;
  observer.on_event = [&id, show = std::move(observer.on_event)](
                          const v1::AnalyzeEvent& event) {
    if (event.has_accepted()) id = event.accepted().request_id();
    show(event);
  };
  const auto fail = [&](const absl::Status& status) {
    const ExitCode code = context->Fail(status);
    if (!kept || id.empty()) return code;
    // A request that was cancelled has no results.
    context->console.Error(absl::StrCat(
        "qkctl: the request's id is ", Printable(id),
        code == kExitCancelled ? "" : "; see qkctl result " + Printable(id)));
    return code;
  };
  const absl::StatusOr<AnalysisResult> result = call(observer);
  if (!result.ok()) return fail(result.status());
  if (!json_) {
    view.Finish(*result);
    PrintGenerated(*result, &context->console);
    if (explain_) context->console.Print("\n" + Explain(*result));
  }
  for (const std::string& line : NonFiniteLines(*result)) {
    context->NonFinite(line, /*allowed=*/true);
  }
  const absl::Status saved = Save(*result, files_);
  return saved.ok() ? kExitOk : fail(saved);
}

}  // namespace qk::client
