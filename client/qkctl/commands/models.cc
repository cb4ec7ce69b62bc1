#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/output/non_finite.h"
#include "client/qkctl/output/requests_view.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

std::string Heads(const v1::ModelInfo& model) {
  if (model.layers().empty()) return "-";
  const v1::LayerInfo& layer = model.layers(0);
  return absl::StrCat(layer.num_heads(), "/", layer.num_kv_heads(), " x ",
                      layer.head_dim());
}

// What is wrong with the model, to stand at the end of its row.
std::string Problem(const v1::ModelInfo& model) {
  if (!model.failure().empty()) return "  " + model.failure();
  if (!model.text_problem().empty()) return "  takes token ids only";
  const std::string weights = NonFiniteWeightsText(model);
  return weights.empty() ? "" : "  " + weights;
}

void PrintTable(const v1::ListModelsResponse& response, Console* console) {
  int width = 4;
  for (const v1::ModelInfo& model : response.models()) {
    width = std::max(width, static_cast<int>(model.name().size()));
  }
  console->Print(console->Bold(absl::StrFormat(
                     "%-*s  %-9s  %-8s  %6s  %-12s  %8s  %7s  %-7s  %s", width,
                     "name", "state", "family", "layers", "heads/kv x dim",
                     "context", "compute", "backend", "memory")) +
                 "\n");
  for (const v1::ModelInfo& model : response.models()) {
    console->Print(absl::StrFormat(
        "%-*s  %-9s  %-8s  %6d  %-14s  %8d  %7s  %-7s  %.0f MiB%s\n", width,
        model.name(), v1::ModelInfo::State_Name(model.state()),
        model.architecture(), model.num_layers(), Heads(model),
        model.context_length(), model.compute_type(), model.backend(),
        MemoryBytes(model) / 1048576.0, Problem(model)));
  }
}

// One line for each device: what it is, and why it is not a better one.
void PrintDevices(const v1::ServerInfo& info, Console* console) {
  for (const v1::BackendInfo& backend : info.backends()) {
    std::string text = absl::StrCat("runs on ", Printable(backend.name()), ": ",
                                    Printable(backend.device()));
    if (!backend.passed_over().empty()) {
      absl::StrAppend(&text, "; not on ", Printable(backend.passed_over()));
    }
    console->Print(text + "\n");
  }
  if (!info.replica().empty()) {
    console->Print(absl::StrCat("replica ", Printable(info.replica()), "\n"));
  }
}

std::string VisionText(const v1::VisionInfo& v) {
  return absl::StrFormat(
      "%d layers of %d heads x %d, hidden size %d; %d x %d patches of %d x %d "
      "pixels become a row of %d",
      v.num_layers(), v.num_heads(), v.head_dim(), v.hidden_size(),
      v.merge_size(), v.merge_size(), v.patch_size(), v.patch_size(),
      v.output_size());
}

// Whether the model takes text, and how it splits it into words.
std::string TextNote(const v1::ModelInfo& model) {
  if (!model.text_problem().empty()) {
    return absl::StrCat("no; ", Printable(model.text_problem()),
                        "; prompts must be token ids");
  }
  if (model.word_splitting().empty()) return "not known until it is loaded";
  return absl::StrCat("yes; words by ", model.word_splitting() == "pattern"
                                            ? "the file's own pattern"
                                            : "built-in code");
}

void PrintDetails(const v1::ModelInfo& model, Console* console) {
  auto row = [console](const char* name, const std::string& value) {
    console->Print(absl::StrFormat("%-18s %s\n", name, value));
  };
  row("name", model.name());
  row("state", v1::ModelInfo::State_Name(model.state()));
  if (!model.failure().empty()) row("failure", model.failure());
  row("family", model.architecture());
  row("parameters", absl::StrCat(model.parameters()));
  row("layers", absl::StrCat(model.num_layers()));
  row("hidden size", absl::StrCat(model.hidden_size()));
  row("heads/kv x dim", Heads(model));
  row("vocabulary", absl::StrCat(model.vocab_size()));
  row("context", absl::StrCat(model.context_length(), " tokens"));
  row("weights", absl::StrCat(model.weights_dtype(), ", computed in ",
                              model.compute_type(), " on ", model.backend()));
  row("device", Printable(model.device()));
  row("memory", absl::StrFormat("%.1f MiB host, %.1f MiB device",
                                model.host_bytes() / 1048576.0,
                                model.device_bytes() / 1048576.0));
  row("weights SHA-256", model.weights_sha256());
  row("text", TextNote(model));
  if (model.has_bos_token_id()) {
    row("BOS token", absl::StrCat(model.bos_token_id()));
  }
  if (!model.eos_token_ids().empty()) {
    row("EOS tokens", absl::StrJoin(model.eos_token_ids(), " "));
  }
  if (!model.tokenizer_sha256().empty()) {
    row("tokenizer SHA-256", model.tokenizer_sha256());
  }
  const auto list = [&](const char* name, const auto& values) {
    if (!values.empty()) row(name, Printable(absl::StrJoin(values, ", ")));
  };
  list("ignored fields", model.ignored_fields());
  list("ignored tensors", model.ignored_tensors());
  for (const std::string& warning : model.warnings()) {
    row("warning", Printable(warning));
  }
  if (model.has_non_finite_weights()) {
    row("not finite", NonFiniteWeightsText(model));
  }
  for (const v1::MatMulGroup& group : model.matmuls()) {
    if (group.passed_over().empty()) continue;
    row("multiplied by",
        Printable(absl::StrFormat("%s: %d matrices (%d, %d), since %s",
                                  group.kernel(), group.matrices(),
                                  group.out_features(), group.in_features(),
                                  group.passed_over())));
  }
  for (const v1::RopeInfo& rope : model.rope()) {
    std::string text =
        absl::StrFormat("theta %g, %d dims, scaling %s", rope.theta(),
                        rope.rotary_dims(), rope.scaling());
    if (!rope.wavelengths().empty()) {
      absl::StrAppendFormat(&text, ", wavelengths %.4g to %.4g tokens",
                            rope.wavelengths(0),
                            rope.wavelengths(rope.wavelengths_size() - 1));
    }
    row("RoPE", text);
  }
  if (!model.has_vision()) return;
  row("vision tower", VisionText(model.vision()));
  row("images",
      absl::StrFormat("token %d each, of %d to %d pixels",
                      model.vision().image_token(), model.vision().min_pixels(),
                      model.vision().max_pixels()));
}

ExitCode RunModels(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kModelsCommand.text, context);
  bool json = false;
  line.flags()->Section("Output");
  line.flags()->Add("json", "print one JSON object instead of the table",
                    &json);
  if (auto over = line.Parse(arguments, 1)) return *over;
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  Console* console = &context->console;
  if (line.words().size() == 1) {
    absl::StatusOr<v1::ModelInfo> model =
        client->GetModel(line.words()[0], context->Call());
    if (!model.ok()) return context->Fail(model.status());
    if (json) {
      console->Print(ToJson(*model) + "\n");
    } else {
      PrintDetails(*model, console);
    }
    return kExitOk;
  }
  absl::StatusOr<v1::ListModelsResponse> models =
      client->ListModels(context->Call());
  if (!models.ok()) return context->Fail(models.status());
  if (json) {
    console->Print(ToJson(*models) + "\n");
    return kExitOk;
  }
  const absl::StatusOr<v1::ServerInfo> info =
      client->GetServerInfo(context->Call());
  if (!info.ok()) return context->Fail(info.status());
  PrintTable(*models, console);
  PrintDevices(*info, console);
  return kExitOk;
}

}  // namespace

const Command kModelsCommand = {
    {"models", "[NAME]", "List the server's models, or show one of them",
     "Examples:\n  qkctl models\n  qkctl models smollm2\n"
     "  qkctl models --json | jq '.models[].name'\n"},
    &RunModels};

}  // namespace qk::client
