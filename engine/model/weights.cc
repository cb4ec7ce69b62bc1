#include "engine/model/weights.h"

#include <functional>
#include <utility>

#include "engine/base/check.h"
#include "engine/model/weight_reader.h"
#include "engine/model/weight_scan.h"

namespace qk {
namespace {

// One load; counts what it has read, to report progress.
class Loader {
 public:
  Loader(const TensorSource& source, const Packing& packing, ComputeType type,
         Backend* backend, const std::function<void(double)>& progress,
         int64_t total, WeightScan* scan)
      : source_(source),
        packing_(packing),
        type_(type),
        backend_(backend),
        progress_(progress),
        total_(total),
        scan_(scan) {}

  // Does nothing if the model has no such weight.
  absl::Status Load(const WeightRef& ref, const WeightRef& bias_ref,
                    std::unique_ptr<Matrix>* out) {
    if (ref.name.empty()) return absl::OkStatus();
    QK_ASSIGN_OR_RETURN(const WeightReader weight, Open(ref));
    QK_ASSIGN_OR_RETURN(const std::vector<float> bias, ReadAll(bias_ref));
    absl::StatusOr<std::unique_ptr<Matrix>> matrix = backend_->PackMatrix(
        ref.shape[0], weight.width(), type_, RowsOf(weight, ScanOf(ref)),
        bias.empty() ? nullptr : bias.data());
    if (!matrix.ok()) return matrix.status();
    *out = *std::move(matrix);
    bytes_ += (*out)->bytes();
    CountMatrix(**out, &matmuls_);
    Step(ref);
    return absl::OkStatus();
  }

  absl::Status LoadVector(const WeightRef& ref, DeviceBuffer* out) {
    if (ref.name.empty()) return absl::OkStatus();
    QK_ASSIGN_OR_RETURN(const std::vector<float> values, ReadAll(ref));
    Step(ref);
    return Put(values.data(), values.size() * sizeof(float), out);
  }

  absl::Status LoadNorm(const NormRef& ref, NormWeights* out) {
    QK_RETURN_IF_ERROR(LoadVector(ref.weight, &out->weight));
    return LoadVector(ref.bias, &out->bias);
  }

  absl::Status LoadTable(const WeightRef& ref, DeviceBuffer* out) {
    if (ref.name.empty()) return absl::OkStatus();
    QK_ASSIGN_OR_RETURN(const WeightReader table, Open(ref));
    absl::StatusOr<DeviceBuffer> buffer = backend_->PackTable(
        ref.shape[0], table.width(), type_, RowsOf(table, ScanOf(ref)));
    if (!buffer.ok()) return buffer.status();
    bytes_ += buffer->bytes();
    *out = *std::move(buffer);
    Step(ref);
    return absl::OkStatus();
  }

  absl::Status Put(const void* data, int64_t bytes, DeviceBuffer* out) {
    absl::StatusOr<DeviceBuffer> buffer = backend_->Allocate(bytes);
    if (!buffer.ok()) return buffer.status();
    backend_->Upload(buffer->as<void>(), data, bytes);
    bytes_ += bytes;
    *out = *std::move(buffer);
    return absl::OkStatus();
  }

  int64_t bytes() const { return bytes_; }
  const std::vector<MatMulGroup>& matmuls() const { return matmuls_; }

 private:
  absl::StatusOr<WeightReader> Open(const WeightRef& ref) const {
    return WeightReader::Open(ref, packing_, source_);
  }

  // Returns nothing if the model has no such weight.
  absl::StatusOr<std::vector<float>> ReadAll(const WeightRef& ref) const {
    std::vector<float> values;
    if (ref.name.empty()) return values;
    QK_ASSIGN_OR_RETURN(const WeightReader weight, Open(ref));
    values.resize(ref.shape[0] * weight.width());
    weight.Read(0, ref.shape[0], values.data());
    WeightScan* const scan = ScanOf(ref);
    if (scan != nullptr) scan->Look(weight, 0, ref.shape[0], values.data());
    return values;
  }

  // Returns null if the weight is not to be scanned.
  WeightScan* ScanOf(const WeightRef& ref) const {
    return scan_ != nullptr && scan_->Begin(ref) ? scan_ : nullptr;
  }

  // A scan looks at values, so all must come as such.
  static WeightRows RowsOf(const WeightReader& weight, WeightScan* scan) {
    if (scan == nullptr) return weight.Rows();
    return {[&weight, scan](int64_t begin, int64_t end, float* rows) {
      weight.Read(begin, end, rows);
      scan->Look(weight, begin, end, rows);
    }};
  }

  void Step(const WeightRef& ref) {
    int64_t elements = 1;
    for (int64_t dim : ref.shape) elements *= dim;
    done_ += elements;
    if (progress_) {
      progress_(static_cast<double>(done_) / static_cast<double>(total_));
    }
  }

  const TensorSource& source_;
  const Packing& packing_;
  ComputeType type_;
  Backend* backend_;
  const std::function<void(double)>& progress_;
  int64_t total_;
  WeightScan* scan_;
  int64_t done_ = 0;
  int64_t bytes_ = 0;
  std::vector<MatMulGroup> matmuls_;
};

absl::Status LoadMlp(const MlpWeightRefs& refs, Loader& loader, MlpWeights* w) {
  QK_RETURN_IF_ERROR(
      loader.Load(refs.gate_proj, refs.gate_bias, &w->gate_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.up_proj, refs.up_bias, &w->up_proj));
  return loader.Load(refs.down_proj, refs.down_bias, &w->down_proj);
}

// Refers to rows [first, first + rows) of a weight that the file stores whole.
WeightRef Part(WeightRef ref, int64_t first, int64_t rows) {
  if (ref.name.empty()) return ref;
  ref.fused_rows = ref.shape[0];
  ref.first_row = first;
  ref.shape[0] = rows;
  return ref;
}

absl::Status LoadMamba(const MambaWeightRefs& refs, Loader& loader,
                       MambaWeights* w) {
  if (refs.in_proj.name.empty()) return absl::OkStatus();
  const int64_t inner = refs.d.shape[0];
  const int64_t state = refs.a_log.shape[1];
  const int64_t rank = refs.x_proj.shape[0] - 2 * state;
  const auto half = [&](int64_t first, std::unique_ptr<Matrix>* out) {
    return loader.Load(Part(refs.in_proj, first, inner),
                       Part(refs.in_bias, first, inner), out);
  };
  const auto low = [&](int64_t first, int64_t rows,
                       std::unique_ptr<Matrix>* out) {
    return loader.Load(Part(refs.x_proj, first, rows), {}, out);
  };
  QK_RETURN_IF_ERROR(half(0, &w->x_proj));
  QK_RETURN_IF_ERROR(half(inner, &w->gate_proj));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.conv, &w->conv));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.conv_bias, &w->conv_bias));
  QK_RETURN_IF_ERROR(low(0, rank, &w->dt_low));
  QK_RETURN_IF_ERROR(low(rank, state, &w->b_proj));
  QK_RETURN_IF_ERROR(low(rank + state, state, &w->c_proj));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.dt_norm, &w->dt_norm));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.b_norm, &w->b_norm));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.c_norm, &w->c_norm));
  QK_RETURN_IF_ERROR(loader.Load(refs.dt_proj, refs.dt_bias, &w->dt_proj));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.a_log, &w->a_log));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.d, &w->d));
  return loader.Load(refs.out_proj, refs.out_bias, &w->out_proj);
}

absl::Status LoadLayer(const LayerWeightRefs& refs, Loader& loader,
                       LayerWeights* w) {
  QK_RETURN_IF_ERROR(loader.LoadNorm(refs.attention_norm, &w->attention_norm));
  QK_RETURN_IF_ERROR(loader.Load(refs.q_proj, refs.q_bias, &w->q_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.k_proj, refs.k_bias, &w->k_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.v_proj, refs.v_bias, &w->v_proj));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.q_norm, &w->q_norm));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.k_norm, &w->k_norm));
  QK_RETURN_IF_ERROR(loader.Load(refs.o_proj, refs.o_bias, &w->o_proj));
  QK_RETURN_IF_ERROR(
      loader.LoadNorm(refs.post_attention_norm, &w->post_attention_norm));
  QK_RETURN_IF_ERROR(loader.LoadNorm(refs.mlp_norm, &w->mlp_norm));
  QK_RETURN_IF_ERROR(LoadMamba(refs.mamba, loader, &w->mamba));
  QK_RETURN_IF_ERROR(loader.Load(refs.router, {}, &w->router));
  w->mlps.resize(refs.mlps.size());
  for (size_t i = 0; i < refs.mlps.size(); ++i) {
    QK_RETURN_IF_ERROR(LoadMlp(refs.mlps[i], loader, &w->mlps[i]));
  }
  return loader.LoadNorm(refs.post_mlp_norm, &w->post_mlp_norm);
}

absl::Status LoadVision(const VisionWeightRefs& refs, Loader& loader,
                        VisionWeights* w) {
  QK_RETURN_IF_ERROR(loader.Load(refs.patch_embed, {}, &w->patch_embed));
  w->layers.resize(refs.layers.size());
  for (size_t i = 0; i < refs.layers.size(); ++i) {
    QK_RETURN_IF_ERROR(LoadLayer(refs.layers[i], loader, &w->layers[i]));
  }
  QK_RETURN_IF_ERROR(loader.LoadNorm(refs.merger_norm, &w->merger_norm));
  return LoadMlp(refs.merger, loader, &w->merger);
}

}  // namespace

void Norm(const ModelConfig& config, const NormWeights& weights, const float* x,
          int rows, float* out, Backend& backend) {
  const float* weight = weights.weight.as<float>();
  if (config.norm == NormKind::kRms) {
    backend.RmsNorm(x, weight, config.norm_eps, rows, config.hidden_size, out);
  } else {
    backend.LayerNorm(x, weight, weights.bias.as<float>(), config.norm_eps,
                      rows, config.hidden_size, out);
  }
}

absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(
    const Architecture& architecture, TensorSource& source, ComputeType type,
    Backend* backend, const std::function<void(double)>& progress,
    WeightScan* scan) {
  Loader loader(source, architecture.packing, type, backend, progress,
                CountElements(architecture), scan);
  auto weights = std::make_unique<Weights>();
  weights->layers.resize(architecture.layers.size());
  QK_RETURN_IF_ERROR(
      loader.LoadTable(architecture.embedding, &weights->embedding));
  QK_RETURN_IF_ERROR(
      loader.LoadTable(architecture.positions, &weights->positions));
  QK_RETURN_IF_ERROR(
      loader.Load(architecture.project_in, {}, &weights->project_in));
  QK_RETURN_IF_ERROR(loader.Load(architecture.lm_head, {}, &weights->lm_head));
  for (size_t i = 0; i < architecture.layers.size(); ++i) {
    QK_RETURN_IF_ERROR(
        LoadLayer(architecture.layers[i], loader, &weights->layers[i]));
    // Drops the file's pages of what has been packed, so that it is not held
    // twice.
    source.DropPages();
  }
  QK_RETURN_IF_ERROR(
      loader.LoadNorm(architecture.final_norm, &weights->final_norm));
  QK_RETURN_IF_ERROR(
      loader.Load(architecture.project_out, {}, &weights->project_out));
  QK_RETURN_IF_ERROR(LoadVision(architecture.vision, loader, &weights->vision));
  weights->bytes = loader.bytes();
  weights->matmuls = loader.matmuls();
  return weights;
}

}  // namespace qk
