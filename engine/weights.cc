#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/formats/dequantize.h"
#include "engine/half.h"

namespace qk {
namespace {

// Row r of a head in Hugging Face's order is row 2 i + j in the file, where
// j = r / (head_dim / 2) and i = r % (head_dim / 2).
int64_t FileRow(const WeightRef& ref, int64_t row) {
  if (ref.interleaved_heads == 0) return row;
  const int64_t dim = ref.shape[0] / ref.interleaved_heads;
  const int64_t head = row / dim;
  const int64_t r = row % dim;
  return head * dim + 2 * (r % (dim / 2)) + r / (dim / 2);
}

// Rows [begin, end) of a tensor as float32, in the engine's order. A tensor of
// one dimension has rows of one element and may only be read whole.
void ReadRows(const TensorInfo& tensor, const WeightRef& ref, int64_t begin,
              int64_t end, float* out) {
  const int64_t width = ref.shape.size() == 1 ? 1 : ref.shape[1];
  if (ref.shape.size() == 1) {
    std::vector<float> file(ref.shape[0]);
    Dequantize(tensor.dtype, tensor.data.data(), ref.shape[0], file.data());
    for (int64_t r = begin; r < end; ++r) *out++ = file[FileRow(ref, r)];
    return;
  }
  const int64_t row_bytes =
      width / BlockElements(tensor.dtype) * BlockBytes(tensor.dtype);
  if (ref.interleaved_heads == 0) {
    Dequantize(tensor.dtype, tensor.data.data() + begin * row_bytes,
               (end - begin) * width, out);
    return;
  }
  for (int64_t r = begin; r < end; ++r, out += width) {
    Dequantize(tensor.dtype, tensor.data.data() + FileRow(ref, r) * row_bytes,
               width, out);
  }
}

absl::Status CheckOne(const WeightRef& ref, const TensorSource& source) {
  if (ref.name.empty()) return absl::OkStatus();
  const TensorInfo* tensor = source.Find(ref.name);
  const std::string expected =
      absl::StrCat("[", absl::StrJoin(ref.shape, ","), "]");
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("missing '", ref.name, "'; expected ", expected));
  }
  if (tensor->shape != ref.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", ref.name, "': expected ", expected, ", got [",
                     absl::StrJoin(tensor->shape, ","), "]"));
  }
  return absl::OkStatus();
}

std::vector<const WeightRef*> AllRefs(const Architecture& a) {
  std::vector<const WeightRef*> refs = {&a.embedding, &a.final_norm, &a.lm_head,
                                        &a.rope_factors};
  for (const LayerWeightRefs& l : a.layers) {
    for (const WeightRef* ref :
         {&l.attention_norm, &l.mlp_norm, &l.q_proj, &l.k_proj, &l.v_proj,
          &l.o_proj, &l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias, &l.gate_proj,
          &l.up_proj, &l.down_proj, &l.gate_bias, &l.up_bias, &l.down_bias}) {
      refs.push_back(ref);
    }
  }
  return refs;
}

// One load: keeps count, so that progress can be told.
class Loader {
 public:
  Loader(TensorSource& source, ComputeType type, Backend* backend,
         const std::function<void(double)>& progress, int64_t total)
      : source_(source),
        type_(type),
        backend_(backend),
        progress_(progress),
        total_(total) {}

  absl::Status Load(const WeightRef& ref, const WeightRef& bias_ref,
                    std::unique_ptr<Matrix>* out) {
    const TensorInfo& tensor = *source_.Find(ref.name);
    std::vector<float> bias = ReadAll(bias_ref);
    absl::StatusOr<std::unique_ptr<Matrix>> matrix = backend_->PackMatrix(
        ref.shape[0], ref.shape[1], type_,
        [&](int64_t begin, int64_t end, float* rows) {
          ReadRows(tensor, ref, begin, end, rows);
        },
        bias.empty() ? nullptr : bias.data());
    if (!matrix.ok()) return matrix.status();
    *out = *std::move(matrix);
    bytes_ += (*out)->bytes();
    Step(ref);
    return absl::OkStatus();
  }

  absl::Status LoadVector(const WeightRef& ref, DeviceBuffer* out) {
    const std::vector<float> values = ReadAll(ref);
    Step(ref);
    return Put(values.data(), values.size() * sizeof(float), out);
  }

  absl::Status LoadEmbedding(const WeightRef& ref, DeviceBuffer* out) {
    const TensorInfo& tensor = *source_.Find(ref.name);
    const int64_t row_bytes = ref.shape[1] * BytesOf(type_);
    absl::StatusOr<DeviceBuffer> buffer =
        backend_->Allocate(ref.shape[0] * row_bytes);
    if (!buffer.ok()) return buffer.status();
    constexpr int64_t kChunk = 1024;
    std::vector<float> rows(kChunk * ref.shape[1]);
    std::vector<uint16_t> half(rows.size());
    for (int64_t begin = 0; begin < ref.shape[0]; begin += kChunk) {
      const int64_t end = std::min(ref.shape[0], begin + kChunk);
      ReadRows(tensor, ref, begin, end, rows.data());
      const void* from = rows.data();
      if (type_ == ComputeType::kBF16) {
        for (size_t i = 0; i < rows.size(); ++i) {
          half[i] = RoundToBF16(rows[i]);
        }
        from = half.data();
      }
      backend_->Upload(buffer->as<uint8_t>() + begin * row_bytes, from,
                       (end - begin) * row_bytes);
    }
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

 private:
  std::vector<float> ReadAll(const WeightRef& ref) {
    std::vector<float> values;
    if (ref.name.empty()) return values;
    values.resize(ref.shape[0]);
    ReadRows(*source_.Find(ref.name), ref, 0, ref.shape[0], values.data());
    return values;
  }

  void Step(const WeightRef& ref) {
    int64_t elements = 1;
    for (int64_t dim : ref.shape) elements *= dim;
    done_ += elements;
    if (progress_) {
      progress_(static_cast<double>(done_) / static_cast<double>(total_));
    }
  }

  TensorSource& source_;
  ComputeType type_;
  Backend* backend_;
  const std::function<void(double)>& progress_;
  int64_t total_;
  int64_t done_ = 0;
  int64_t bytes_ = 0;
};

// cos and sin of every position: (context, 2, rotary / 2). Angles are float32
// products, as transformers computes them.
std::vector<float> RopeTable(const RopeConfig& rope, int context) {
  const size_t half = rope.frequencies.size();
  std::vector<float> table(static_cast<size_t>(context) * 2 * half);
  for (int position = 0; position < context; ++position) {
    float* cos = table.data() + static_cast<size_t>(position) * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) *
                          static_cast<float>(rope.frequencies[i]);
      cos[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      cos[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

absl::Status LoadRope(const ModelConfig& config, Loader& loader,
                      Weights* weights) {
  // Layers that rotate alike share one table.
  std::map<std::vector<double>, const float*> tables;
  weights->rope_tables.reserve(config.layers.size());
  for (int i = 0; i < config.num_layers(); ++i) {
    const RopeConfig& rope = config.layers[i].attention.rope;
    if (rope.frequencies.empty()) continue;
    const float*& table = tables[rope.frequencies];
    if (table == nullptr) {
      const std::vector<float> values = RopeTable(rope, config.context_length);
      weights->rope_tables.emplace_back();
      QK_RETURN_IF_ERROR(loader.Put(values.data(),
                                    values.size() * sizeof(float),
                                    &weights->rope_tables.back()));
      table = weights->rope_tables.back().as<float>();
    }
    weights->layers[i].rope = table;
  }
  return absl::OkStatus();
}

absl::Status LoadLayer(const LayerWeightRefs& refs, Loader& loader,
                       LayerWeights* w) {
  QK_RETURN_IF_ERROR(
      loader.LoadVector(refs.attention_norm, &w->attention_norm));
  QK_RETURN_IF_ERROR(loader.Load(refs.q_proj, refs.q_bias, &w->q_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.k_proj, refs.k_bias, &w->k_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.v_proj, refs.v_bias, &w->v_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.o_proj, refs.o_bias, &w->o_proj));
  QK_RETURN_IF_ERROR(loader.LoadVector(refs.mlp_norm, &w->mlp_norm));
  QK_RETURN_IF_ERROR(
      loader.Load(refs.gate_proj, refs.gate_bias, &w->gate_proj));
  QK_RETURN_IF_ERROR(loader.Load(refs.up_proj, refs.up_bias, &w->up_proj));
  return loader.Load(refs.down_proj, refs.down_bias, &w->down_proj);
}

}  // namespace

absl::Status CheckWeights(const Architecture& architecture,
                          const TensorSource& source) {
  std::set<absl::string_view> known;
  for (const WeightRef* ref : AllRefs(architecture)) {
    QK_RETURN_IF_ERROR(CheckOne(*ref, source));
    known.insert(ref->name);
  }
  // A tensor that nobody reads may be a layer or a bias that the configuration
  // does not know of: the numbers would be wrong without it.
  for (const TensorInfo& tensor : source.tensors()) {
    const bool derived =
        absl::EndsWith(tensor.name, ".rotary_emb.inv_freq") ||
        (architecture.config.tied_head && tensor.name == "lm_head.weight");
    if (known.count(tensor.name) == 0 && !derived) {
      return absl::InvalidArgumentError(absl::StrCat(
          "extra '", tensor.name, "': not a tensor of this configuration"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Weights>> LoadWeights(
    const Architecture& architecture, TensorSource& source, ComputeType type,
    Backend* backend, const std::function<void(double)>& progress) {
  int64_t total = 0;
  for (const WeightRef* ref : AllRefs(architecture)) {
    int64_t elements = ref->name.empty() ? 0 : 1;
    for (int64_t dim : ref->shape) elements *= dim;
    total += elements;
  }
  Loader loader(source, type, backend, progress, total);
  auto weights = std::make_unique<Weights>();
  weights->layers.resize(architecture.layers.size());
  QK_RETURN_IF_ERROR(
      loader.LoadEmbedding(architecture.embedding, &weights->embedding));
  QK_RETURN_IF_ERROR(
      loader.Load(architecture.lm_head, WeightRef{}, &weights->lm_head));
  for (size_t i = 0; i < architecture.layers.size(); ++i) {
    QK_RETURN_IF_ERROR(
        LoadLayer(architecture.layers[i], loader, &weights->layers[i]));
  }
  QK_RETURN_IF_ERROR(
      loader.LoadVector(architecture.final_norm, &weights->final_norm));
  QK_RETURN_IF_ERROR(LoadRope(architecture.config, loader, weights.get()));
  weights->bytes = loader.bytes();
  return weights;
}

}  // namespace qk
