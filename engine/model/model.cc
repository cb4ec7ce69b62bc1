#include "engine/model/model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <map>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/architectures/architecture.h"
#include "engine/architectures/hf_image_processor.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/base/check.h"
#include "engine/base/out_of_memory.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/gguf.h"
#include "engine/formats/mapped_file.h"
#include "engine/formats/safetensors.h"
#include "engine/model/kv_cache.h"
#include "engine/model/weight_scan.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"

namespace qk {
namespace {

namespace fs = std::filesystem;

// A model's files, opened and checked.
struct OpenModel {
  std::unique_ptr<TensorSource> source;
  Architecture architecture;
  std::unique_ptr<Tokenizer> tokenizer;
};

absl::StatusOr<std::string> ReadText(const fs::path& path) {
  QK_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                      MappedFile::Open(path.string()));
  const absl::Span<const uint8_t> bytes = file->bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

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

absl::StatusOr<OpenModel> OpenGguf(const std::string& path) {
  OpenModel model;
  QK_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  QK_ASSIGN_OR_RETURN(model.architecture, ArchitectureFromGguf(*file));
  if (file->Has("tokenizer.ggml.model")) {
    QK_ASSIGN_OR_RETURN(model.tokenizer, TokenizerFromGguf(*file));
  }
  model.source = std::move(file);
  return model;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(
    const fs::path& folder) {
  std::string config;
  if (Exists(folder / "tokenizer_config.json")) {
    QK_ASSIGN_OR_RETURN(config, ReadText(folder / "tokenizer_config.json"));
  }
  if (Exists(folder / "tokenizer.json")) {
    QK_ASSIGN_OR_RETURN(const std::string json,
                        ReadText(folder / "tokenizer.json"));
    return TokenizerFromJson(json, config);
  }
  if (Exists(folder / "tokenizer.model")) {
    QK_ASSIGN_OR_RETURN(const std::string bytes,
                        ReadText(folder / "tokenizer.model"));
    return TokenizerFromSentencePiece(bytes, config);
  }
  if (!config.empty() && Exists(folder / "vocab.json") &&
      Exists(folder / "merges.txt")) {
    QK_ASSIGN_OR_RETURN(const std::string vocab,
                        ReadText(folder / "vocab.json"));
    QK_ASSIGN_OR_RETURN(const std::string merges,
                        ReadText(folder / "merges.txt"));
    return TokenizerFromVocabAndMerges(vocab, merges, config);
  }
  return std::unique_ptr<Tokenizer>();
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
  QK_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  JsonLimits limits;
  limits.max_bytes = int64_t{16} << 20;
  return JsonDocument::Parse(name, text, limits);
}

absl::StatusOr<OpenModel> OpenFolder(const std::string& path) {
  const bool is_file = absl::EndsWith(path, ".safetensors") ||
                       absl::EndsWith(path, ".index.json");
  const fs::path folder =
      is_file ? fs::path(path).parent_path() : fs::path(path);
  OpenModel model;
  QK_ASSIGN_OR_RETURN(const JsonDocument config,
                      ReadJson(folder / "config.json", "config"));
  QK_ASSIGN_OR_RETURN(model.architecture,
                      ArchitectureFromConfig(config.root()));
  QK_RETURN_IF_ERROR(AddEosIds(config.root(), &model.architecture.config));
  if (const fs::path path = folder / "generation_config.json"; Exists(path)) {
    QK_ASSIGN_OR_RETURN(const JsonDocument generation,
                        ReadJson(path, "generation_config"));
    QK_RETURN_IF_ERROR(
        AddEosIds(generation.root(), &model.architecture.config));
  }
  VisionConfig& vision = model.architecture.config.vision;
  if (const fs::path path = folder / "preprocessor_config.json";
      vision.num_layers > 0 && Exists(path)) {
    QK_ASSIGN_OR_RETURN(const JsonDocument processor,
                        ReadJson(path, "preprocessor_config"));
    QK_ASSIGN_OR_RETURN(vision.processing,
                        ReadImageProcessing(processor.root(), vision));
  }
  QK_ASSIGN_OR_RETURN(model.source, OpenSafetensors(path));
  QK_ASSIGN_OR_RETURN(model.tokenizer, OpenTokenizer(folder));
  return model;
}

absl::StatusOr<OpenModel> Open(const std::string& path) {
  if (!Exists(path)) {
    return absl::NotFoundError(absl::StrCat(fs::path(path).filename().string(),
                                            ": no such file or folder"));
  }
  absl::StatusOr<OpenModel> model =
      absl::EndsWith(path, ".gguf") ? OpenGguf(path) : OpenFolder(path);
  if (!model.ok()) return model.status();
  ResolvePrefixes(*model->source, &model->architecture);
  QK_RETURN_IF_ERROR(CheckWeights(model->architecture, *model->source));
  QK_RETURN_IF_ERROR(ReadRopeFactors(*model->source, &model->architecture));
  if (model->tokenizer != nullptr &&
      model->tokenizer->vocab_size() > model->architecture.config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer: vocabulary of ",
                     model->tokenizer->vocab_size(), ", but the embedding has ",
                     model->architecture.config.vocab_size, " rows"));
  }
  return model;
}

// The stored types, for example "F16"; the words of packed layers count under
// their method's name.
std::string StoredType(const TensorInfo& tensor, const Packing& packing) {
  if (tensor.dtype != DType::kI32) return std::string(DTypeName(tensor.dtype));
  return packing.method == Packing::Method::kAwq    ? "AWQ"
         : packing.method == Packing::Method::kGptq ? "GPTQ"
                                                    : "I32";
}

ModelDescription Describe(const OpenModel& model, ComputeType compute) {
  ModelDescription d;
  d.config = model.architecture.config;
  std::map<std::string, int64_t> bytes_of;
  for (const TensorInfo& t : model.source->tensors()) {
    bytes_of[StoredType(t, model.architecture.packing)] +=
        static_cast<int64_t>(t.data.size());
  }
  std::vector<std::pair<int64_t, std::string>> order;
  order.reserve(bytes_of.size());
  for (const auto& [name, bytes] : bytes_of) order.emplace_back(-bytes, name);
  std::sort(order.begin(), order.end());
  std::vector<std::string> names;
  names.reserve(order.size());
  for (const auto& [bytes, name] : order) names.push_back(name);
  d.weights_dtype = absl::StrJoin(names, ",");
  d.file_bytes = model.source->file_bytes();
  const int64_t elements = CountElements(model.architecture);
  const WeightRef& head = model.architecture.lm_head;
  const bool tied = head.name == model.architecture.embedding.name;
  d.parameters = elements - (tied ? head.shape[0] * head.shape[1] : 0);
  d.host_bytes_estimate = elements * BytesOf(compute);
  return d;
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeModel(const std::string& path,
                                               ComputeType compute) {
  return WithoutBadAlloc([&]() -> absl::StatusOr<ModelDescription> {
    QK_ASSIGN_OR_RETURN(const OpenModel model, Open(path));
    return Describe(model, compute);
  });
}

Model::Model() = default;
Model::~Model() = default;

void Model::FindRopes() {
  for (const LayerConfig& layer : config().layers) {
    const RopeConfig& rope = layer.attention.rope;
    if (rope.frequencies.empty()) {
      rope_of_layer_.push_back(-1);
      continue;
    }
    const auto found = std::find(ropes_.begin(), ropes_.end(), rope);
    rope_of_layer_.push_back(static_cast<int>(found - ropes_.begin()));
    if (found == ropes_.end()) ropes_.push_back(rope);
  }
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(
    const std::string& path, const ModelOptions& options, Backend* backend) {
  return WithoutBadAlloc([&] { return Read(path, options, backend); });
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Read(
    const std::string& path, const ModelOptions& options, Backend* backend) {
  const auto start = std::chrono::steady_clock::now();
  QK_ASSIGN_OR_RETURN(OpenModel open, Open(path));
  std::shared_ptr<Model> model(new Model());
  model->description_ = Describe(open, options.compute);
  model->compute_ = options.compute;
  model->backend_ = backend;
  // Hashing reads the same pages as loading: side by side they cost one read.
  std::future<std::string> hash =
      std::async(std::launch::async, [&] { return open.source->Sha256Hex(); });
  WeightScan scan;
  const bool scanned =
      model->description_.file_bytes < options.check_weights_below;
  absl::StatusOr<std::unique_ptr<Weights>> weights =
      LoadWeights(open.architecture, *open.source, options.compute, backend,
                  options.progress, scanned ? &scan : nullptr);
  model->weights_sha256_ = hash.get();
  if (!weights.ok()) return weights.status();
  QK_RETURN_IF_ERROR(open.source->ReadStatus());
  open.source->DropPages();
  if (!options.expected_sha256.empty() &&
      options.expected_sha256 != model->weights_sha256_) {
    return absl::DataLossError(absl::StrCat(
        fs::path(path).filename().string(), ": sha256 is ",
        model->weights_sha256_, ", expected ", options.expected_sha256));
  }
  model->weights_ = *std::move(weights);
  if (scanned) model->non_finite_weights_ = scan.found();
  model->FindRopes();
  model->tokenizer_ = std::move(open.tokenizer);
  model->pages_ = std::make_unique<PagePool>(model->config(), options.compute,
                                             options.kv_cache_bytes, backend);
  model->workspace_ = std::make_unique<Workspace>(model->config(), backend);
  QK_RETURN_IF_ERROR(model->workspace_->Reserve(options.max_rows_per_pass));
  model->max_rows_per_pass_ = options.max_rows_per_pass;
  QK_RETURN_IF_ERROR(backend->Synchronize());
  model->device_bytes_ = model->weights_->bytes;
  model->host_bytes_ = model->weights_->bytes + model->workspace_->bytes();
  model->load_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return std::shared_ptr<const Model>(std::move(model));
}

}  // namespace qk
