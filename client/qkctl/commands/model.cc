#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/qkctl/command.h"
#include "client/qkctl/output/non_finite.h"
#include "client/qkctl/output/requests_view.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

struct LoadFlags {
  std::optional<std::string> compute;
  std::optional<std::string> sha256;
  bool replace = false;
  std::vector<std::string> ignore;
  std::vector<std::string> ignore_tensors;
};

std::string ProgressText(const std::string& name,
                         const v1::LoadProgress& progress) {
  std::string phase = v1::LoadProgress::Phase_Name(progress.phase());
  for (char& c : phase) c = c == '_' ? ' ' : absl::ascii_tolower(c);
  std::string text = absl::StrCat(name, ": ", phase);
  if (progress.phase() == v1::LoadProgress::READING &&
      progress.bytes_total() > 0) {
    absl::StrAppendFormat(&text, " %.0f of %.0f MiB",
                          progress.bytes_read() / 1048576.0,
                          progress.bytes_total() / 1048576.0);
  }
  return text;
}

ExitCode Load(const std::string& name, const std::string& path,
              const LoadFlags& flags, Context* context) {
  v1::LoadModelRequest request;
  request.set_name(name);
  request.set_path(path);
  if (flags.compute.has_value()) request.set_compute(*flags.compute);
  if (flags.sha256.has_value()) request.set_sha256(*flags.sha256);
  request.set_replace(flags.replace);
  for (const std::string& field : flags.ignore) request.add_ignore(field);
  for (const std::string& tensor : flags.ignore_tensors) {
    request.add_ignore_tensors(tensor);
  }
  std::vector<std::string> evicted;
  const auto model = context->Connect()->LoadModel(
      request,
      [&](const v1::LoadProgress& progress) {
        context->console.Progress(ProgressText(name, progress));
        evicted.clear();
        for (const std::string& other : progress.evicted()) {
          evicted.push_back(Printable(other));
        }
      },
      context->Call());
  context->console.ClearProgress();
  if (!model.ok()) return context->Fail(model.status());
  context->console.Print(absl::StrFormat(
      "%s is ready: %s, %d layers, %s, %.1f MiB, SHA-256 %s%s\n", name,
      model->architecture(), model->num_layers(), model->compute_type(),
      MemoryBytes(*model) / 1048576.0, model->weights_sha256(),
      evicted.empty() ? ""
                      : absl::StrCat("; unloaded to make room: ",
                                     absl::StrJoin(evicted, ", "))));
  const std::string bad = NonFiniteWeightsText(*model);
  return bad.empty() ? kExitOk : context->NonFinite(bad, /*allowed=*/true);
}

ExitCode Unload(const std::string& name, Context* context) {
  context->console.Progress(
      absl::StrCat(name, ": waiting for its requests to end"));
  const absl::Status status =
      context->Connect()->UnloadModel(name, context->Call());
  context->console.ClearProgress();
  if (!status.ok()) return context->Fail(status);
  context->console.Print(absl::StrCat(name, " is unloaded\n"));
  return kExitOk;
}

ExitCode Reload(Context* context) {
  const auto response = context->Connect()->ReloadConfig(context->Call());
  if (!response.ok()) return context->Fail(response.status());
  bool failed = false;
  for (const auto& part : response->parts()) {
    failed |= !part.failure().empty();
    context->console.Print(absl::StrCat(
        Printable(part.name()), ": ", Printable(part.text()),
        !part.failure().empty()
            ? absl::StrCat("; not reloaded: ", Printable(part.failure()))
        : part.changed() ? " (changed)"
                         : " (as before)",
        "\n"));
  }
  return failed ? kExitBadRequest : kExitOk;
}

ExitCode RunModel(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kModelCommand.text, context);
  LoadFlags flags;
  line.flags()->Section("Loading");
  line.flags()->Add("compute", "TYPE", "f32 (default) or bf16", &flags.compute);
  line.flags()->Offer("f32, bf16");
  line.flags()->Add("sha256", "HEX", "the weights' expected SHA-256",
                    &flags.sha256);
  line.flags()->Add("ignore", "FIELD",
                    "read the model as if this field of its config.json, or "
                    "key of its .gguf file, was missing; may be repeated",
                    &flags.ignore);
  line.flags()->Add("ignore-tensors", "NAME",
                    "load the model without the tensors of this name, in which "
                    "* stands for any characters; may be repeated",
                    &flags.ignore_tensors);
  line.flags()->Add("replace", "allow a name that is already served",
                    &flags.replace);
  if (auto over = line.Parse(arguments, 3)) return *over;
  const std::vector<std::string>& words = line.words();
  if (words.size() == 3 && words[0] == "load") {
    return Load(words[1], words[2], flags, context);
  }
  const bool given = flags.compute || flags.sha256 || flags.replace ||
                     !flags.ignore.empty() || !flags.ignore_tensors.empty();
  if (!given && words.size() == 2 && words[0] == "unload") {
    return Unload(words[1], context);
  }
  if (!given && words.size() == 1 && words[0] == "reload-config") {
    return Reload(context);
  }
  return context->FailUsage(absl::InvalidArgumentError(
      "model: expected load NAME PATH, unload NAME or reload-config; see qkctl "
      "model --help"));
}

}  // namespace

const Command kModelCommand = {
    {"model", "load NAME PATH | unload NAME | reload-config",
     "Load and unload models while the server runs",
     "For operators, if the server's configuration enables model_admin. PATH "
     "is\nrelative to the server's model_admin.root. Requests in progress keep "
     "the model\nthey began with; unload returns when the last of them has "
     "ended. reload-config\nreads users and TLS files again. Ctrl-C only stops "
     "waiting; it does not stop the\nload or unload.\n\n"
     "Examples:\n  qkctl model load smollm2 SmolLM2-135M-Instruct.gguf\n"
     "  qkctl model load smollm2 smollm2-new --compute bf16 --replace\n"
     "  qkctl model unload smollm2\n"},
    &RunModel};

}  // namespace qk::client
