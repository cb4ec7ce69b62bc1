#include "engine/model/model.h"

#include <algorithm>
#include <filesystem>
#include <future>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/base/out_of_memory.h"
#include "engine/formats/dequantize.h"
#include "engine/model/kv_cache.h"
#include "engine/model/open_model.h"
#include "engine/model/weight_scan.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"

namespace qk {
namespace {

namespace fs = std::filesystem;

// The stored types, for example "F16"; the words of packed layers count under
// their method's name.
std::string StoredType(const TensorInfo& tensor, const Packing& packing) {
  if (tensor.dtype != DType::kI32) return std::string(DTypeName(tensor.dtype));
  return packing.method == Packing::Method::kAwq    ? "AWQ"
         : packing.method == Packing::Method::kGptq ? "GPTQ"
                                                    : "I32";
}

ModelDescription Describe(const OpenModel& model, ComputeType compute,
                          const IgnoredParts& ignored) {
  ModelDescription d;
  d.text_problem = model.text_problem;
  d.warnings = model.warnings;
  d.ignored = ignored;
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
  d.bytes_estimate = elements * BytesOf(compute);
  d.kv_page_bytes = PagePool::PageBytes(d.config, compute);
  return d;
}

using Loaded = absl::StatusOr<std::shared_ptr<const Model>>;

// The next load on this thread must not be told what this one has failed with.
template <typename Body>
Loaded WithoutTraces(Backend* backend, const Body& body) {
  Loaded model = WithoutBadAlloc(body);
  if (!model.ok()) backend->Synchronize().IgnoreError();
  return model;
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeModel(const std::string& path,
                                               ComputeType compute,
                                               const IgnoredParts& ignored) {
  return WithoutBadAlloc([&]() -> absl::StatusOr<ModelDescription> {
    QK_ASSIGN_OR_RETURN(const OpenModel model, OpenModelFiles(path, ignored));
    return Describe(model, compute, ignored);
  });
}

absl::StatusOr<std::string> WeightsSha256(const std::string& path,
                                          const IgnoredParts& ignored) {
  return WithoutBadAlloc([&]() -> absl::StatusOr<std::string> {
    QK_ASSIGN_OR_RETURN(const OpenModel model, OpenModelFiles(path, ignored));
    std::string sha256 = model.source->Sha256Hex();
    QK_RETURN_IF_ERROR(model.source->ReadStatus());
    return sha256;
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
  const auto start = std::chrono::steady_clock::now();
  return WithoutTraces(backend, [&]() -> Loaded {
    QK_ASSIGN_OR_RETURN(OpenModel open, OpenModelFiles(path, options.ignored));
    return Read(std::move(open), fs::path(path).filename().string(), options,
                backend, start);
  });
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(
    OpenModel open, const std::string& name, const ModelOptions& options,
    Backend* backend) {
  const auto start = std::chrono::steady_clock::now();
  return WithoutTraces(backend, [&] {
    return Read(std::move(open), name, options, backend, start);
  });
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Read(
    OpenModel open, const std::string& name, const ModelOptions& options,
    Backend* backend, std::chrono::steady_clock::time_point start) {
  std::shared_ptr<Model> model(new Model());
  model->description_ = Describe(open, options.compute, options.ignored);
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
    return absl::DataLossError(
        absl::StrCat(name, ": sha256 is ", model->weights_sha256_,
                     ", expected ", options.expected_sha256));
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
  if (backend->info().memory_bytes > 0) {
    model->device_bytes_ = std::exchange(model->host_bytes_, 0);
  }
  model->load_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return std::shared_ptr<const Model>(std::move(model));
}

const std::vector<MatMulGroup>& Model::matmuls() const {
  return weights_->matmuls;
}

}  // namespace qk
