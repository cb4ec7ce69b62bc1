#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/files/file_io.h"
#include "client/files/replay.h"
#include "client/qkctl/command.h"
#include "client/qkctl/output/non_finite.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// Adds the images' bytes from `files` to the digests and sizes that a manifest
// has.
absl::Status FillImages(const std::vector<std::string>& files,
                        v1::Input* input) {
  if (static_cast<int>(files.size()) != input->images_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--image: the run had ", input->images_size(),
                     " images, got ", files.size(), " files"));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    absl::StatusOr<std::string> content = ReadFile(files[i]);
    if (!content.ok()) return content.status();
    v1::Image* image = input->mutable_images(static_cast<int>(i));
    if (image->has_patches()) {
      image->mutable_patches()->set_values(*std::move(content));
    } else {
      image->set_encoded(*std::move(content));
    }
  }
  return absl::OkStatus();
}

ExitCode RunReplay(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kReplayCommand.text, context);
  std::optional<std::string> model;
  line.flags()->Section("Request");
  line.flags()->Add("model", "NAME",
                    "the model's name on this server (default: that in FILE)",
                    &model);
  std::vector<std::string> images;
  line.flags()->Add("image", "FILE",
                    "an image of the run; repeat for all images, in order (for "
                    "patches: a file of their float32 values)",
                    &images);
  if (auto over = line.Parse(arguments, 1)) return *over;
  if (line.words().empty()) {
    return context->FailUsage(absl::InvalidArgumentError(
        "replay: needs a file saved with --manifest or --out"));
  }
  absl::StatusOr<SavedAnalysis> saved = ReadSavedAnalysis(line.words()[0]);
  if (!saved.ok()) return context->Fail(saved.status());
  v1::AnalyzeRequest request = ReplayRequest(saved->manifest);
  if (model.has_value()) request.set_model(*model);
  absl::Status filled = FillImages(images, request.mutable_input());
  if (!filled.ok()) return context->FailUsage(filled);

  AnalyzeObserver observer;
  observer.keep_tensors = !saved->tensors.empty();
  absl::StatusOr<AnalysisResult> result =
      context->Connect()->Analyze(request, observer, context->Call());
  if (!result.ok()) return context->Fail(result.status());
  const ReplayReport report = CompareRuns(*saved, *result);
  for (const std::string& text : report.lines) {
    context->console.Print(text + "\n");
  }
  for (const std::string& text : NonFiniteLines(*result)) {
    context->NonFinite(text, /*allowed=*/true);
  }
  switch (report.verdict) {
    case ReplayVerdict::kIdentical:
      return kExitOk;
    case ReplayVerdict::kDiffers:
      return kExitReplayDiffers;
    case ReplayVerdict::kNotComparable:
      return kExitNotComparable;
  }
  return kExitOther;
}

}  // namespace

const Command kReplayCommand = {
    {"replay", "FILE", "Run a saved analysis again and compare every byte",
     "FILE was saved with analyze --manifest or --out. A file from --out has "
     "the\nvalues, so replay can also show how much they differ. Bytes can "
     "only be expected\nto agree with the same weights, compute type, backend "
     "and kernels.\n\n"
     "Examples:\n  qkctl replay p.json\n  qkctl replay p.safetensors\n"
     "  qkctl replay cat.json --image cat.png\n"},
    &RunReplay};

}  // namespace qk::client
