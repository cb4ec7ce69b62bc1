#include "engine/model/open_model.h"

#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_image_processor.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/base/check.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf.h"
#include "engine/formats/mapped_file.h"
#include "engine/formats/safetensors.h"
#include "engine/formats/text_file.h"
#include "engine/model/explain_folder.h"
#include "engine/model/weights.h"

namespace qk {
namespace {

namespace fs = std::filesystem;

std::vector<float> ReadVector(const TensorSource& source,
                              const WeightRef& ref) {
  const TensorInfo& tensor = *source.Find(ref.name);
  std::vector<float> values(ref.shape[0]);
  Dequantize(tensor.dtype, tensor.data.data(), values.size(), values.data());
  return values;
}

// GGUF files store some RoPE scalings as tensors of divisors.
absl::Status ReadRopeFactors(const TensorSource& source, Architecture* a) {
  for (LayerConfig& layer : a->config.layers) {
    RopeConfig& rope = layer.attention.rope;
    if (!a->rope_factors_long.name.empty()) {
      QK_RETURN_IF_ERROR(
          ApplyLongRope(ReadVector(source, a->rope_factors_short),
                        ReadVector(source, a->rope_factors_long),
                        rope.original_context, &rope));
    } else if (!a->rope_factors.name.empty()) {
      QK_RETURN_IF_ERROR(
          DivideFrequencies(ReadVector(source, a->rope_factors), &rope));
    }
  }
  return absl::OkStatus();
}

// Takes the tokenizer. If it is not understood, the model is served without
// text: the numbers do not depend on it.
absl::Status SetTokenizer(absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer,
                          OpenModel* model) {
  if (tokenizer.ok()) {
    model->tokenizer = *std::move(tokenizer);
    if (model->tokenizer == nullptr) {
      model->text_problem = "there is no tokenizer in the model's files";
    }
    return absl::OkStatus();
  }
  if (!absl::IsInvalidArgument(tokenizer.status()) &&
      !absl::IsUnimplemented(tokenizer.status())) {
    return tokenizer.status();
  }
  model->text_problem = std::string(tokenizer.status().message());
  return absl::OkStatus();
}

// Passes over the fields that an operator named.
template <typename File>
absl::Status HideAll(const std::vector<std::string>& fields, File* file) {
  for (const std::string& field : fields) {
    const absl::Status hidden = file->Hide(field);
    if (hidden.ok()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("ignore: ", hidden.message()));
  }
  return absl::OkStatus();
}

absl::Status ReadGgufKeys(const GgufFile& file, OpenModel* model) {
  QK_ASSIGN_OR_RETURN(model->architecture, ArchitectureFromGguf(file));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  absl::string_view kind;
  if (file.Has("tokenizer.ggml.model")) {
    QK_ASSIGN_OR_RETURN(kind, file.GetString("tokenizer.ggml.model"));
  }
  // The converter writes "none" where there was no tokenizer.
  if (kind.empty() || kind == "none") {
    tokenizer = nullptr;
  } else {
    tokenizer = TokenizerFromGguf(file);
  }
  return SetTokenizer(std::move(tokenizer), model);
}

absl::StatusOr<OpenModel> OpenGguf(const std::string& path,
                                   const IgnoredParts& ignored) {
  OpenModel model;
  QK_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  QK_RETURN_IF_ERROR(HideAll(ignored.fields, file.get()));
  const absl::Status read = ReadGgufKeys(*file, &model);
  // Bytes that cannot be read are zeros, which explain any other problem.
  QK_RETURN_IF_ERROR(file->ReadStatus());
  QK_RETURN_IF_ERROR(read);
  model.source = std::move(file);
  return model;
}

// Reads "eos_token_id", an id or a list of ids. An id beyond the vocabulary can
// never occur and is ignored. In a configuration of several parts, the text's
// part may say it in place of the whole.
absl::Status AddEosIds(const JsonValue& json, ModelConfig* config) {
  std::optional<JsonValue> eos = json.Find("eos_token_id");
  const std::optional<JsonValue> text = json.Find("text_config");
  if (!eos.has_value() && text.has_value()) eos = text->Find("eos_token_id");
  if (!eos.has_value()) return absl::OkStatus();
  const auto add = [&](JsonValue value) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const int64_t id, value.AsInt64());
    if (id >= 0 && id < config->vocab_size) {
      config->eos_ids.push_back(static_cast<int32_t>(id));
    }
    return absl::OkStatus();
  };
  return eos->is_array() ? eos->ForEachElement(add) : add(*eos);
}

absl::StatusOr<JsonDocument> ReadJson(const fs::path& path, const char* name) {
  QK_ASSIGN_OR_RETURN(const std::string text, ReadModelText(path.string()));
  JsonLimits limits;
  limits.max_bytes = int64_t{16} << 20;
  return JsonDocument::Parse(name, text, limits);
}

// Reads the files that may stand beside config.json.
absl::Status ReadSettings(const fs::path& folder, ModelConfig* config) {
  if (const fs::path path = folder / "generation_config.json";
      FileExists(path)) {
    QK_ASSIGN_OR_RETURN(const JsonDocument generation,
                        ReadJson(path, "generation_config"));
    QK_RETURN_IF_ERROR(AddEosIds(generation.root(), config));
  }
  VisionConfig& vision = config->vision;
  const fs::path path = folder / "preprocessor_config.json";
  if (vision.num_layers == 0 || !FileExists(path)) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonDocument processor,
                      ReadJson(path, "preprocessor_config"));
  QK_ASSIGN_OR_RETURN(vision.processing,
                      ReadImageProcessing(processor.root(), vision));
  return absl::OkStatus();
}

bool IsModelFile(const std::string& path) {
  return absl::EndsWith(path, ".gguf") ||
         absl::EndsWith(path, ".safetensors") ||
         absl::EndsWith(path, ".index.json");
}

absl::StatusOr<OpenModel> OpenFolder(const std::string& path,
                                     const IgnoredParts& ignored) {
  const bool is_file = absl::EndsWith(path, ".safetensors") ||
                       absl::EndsWith(path, ".index.json");
  const fs::path folder =
      is_file ? fs::path(path).parent_path() : fs::path(path);
  if (!FileExists(folder / "config.json"))
    return ExplainFolder(folder.string());
  OpenModel model;
  QK_ASSIGN_OR_RETURN(JsonDocument config,
                      ReadJson(folder / "config.json", "config"));
  QK_RETURN_IF_ERROR(HideAll(ignored.fields, &config));
  QK_ASSIGN_OR_RETURN(model.architecture,
                      ArchitectureFromConfig(config.root()));
  ModelConfig& described = model.architecture.config;
  QK_RETURN_IF_ERROR(AddEosIds(config.root(), &described));
  QK_RETURN_IF_ERROR(ReadSettings(folder, &described));
  QK_ASSIGN_OR_RETURN(model.source, OpenSafetensors(path));
  QK_RETURN_IF_ERROR(
      SetTokenizer(TokenizerFromFolder(folder.string()), &model));
  return model;
}

// Compares the tensors with what the configuration says of them.
absl::Status CheckTensors(const IgnoredParts& ignored, OpenModel* model) {
  Architecture& architecture = model->architecture;
  model->warnings = architecture.warnings;
  ResolvePrefixes(*model->source, &architecture);
  QK_RETURN_IF_ERROR(
      CheckWeights(architecture, *model->source, ignored.tensors));
  return ReadRopeFactors(*model->source, &architecture);
}

}  // namespace

absl::StatusOr<OpenModel> OpenModelFiles(const std::string& path,
                                         const IgnoredParts& ignored) {
  if (!FileExists(path)) {
    return absl::NotFoundError(absl::StrCat(absl::Utf8SafeCHexEscape(path),
                                            ": no such file or folder"));
  }
  std::error_code ignored_error;
  if (fs::is_regular_file(path, ignored_error) && !IsModelFile(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(FileNameOf(path),
                     ": must be a folder, a .gguf or a .safetensors file"));
  }
  absl::StatusOr<OpenModel> model = absl::EndsWith(path, ".gguf")
                                        ? OpenGguf(path, ignored)
                                        : OpenFolder(path, ignored);
  if (!model.ok()) return model.status();
  const absl::Status checked = CheckTensors(ignored, &*model);
  QK_RETURN_IF_ERROR(model->source->ReadStatus());
  QK_RETURN_IF_ERROR(checked);
  return model;
}

}  // namespace qk
