// THE VISION TOWER'S FORWARD PASS (Qwen2-VL, arXiv:2409.12191). Shapes: rows =
// the patches of all images; q, k, v and z are (rows, heads, head_dim), the
// rest is (rows, hidden).
#include "engine/vision.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/images.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "engine/types/rope_rows.h"

namespace qk {
Vision::Vision(const Model& model, absl::Span<const Image> images)
    : model_(model), config_(model.config().vision), images_(images) {
  for (const Image& image : images) {
    const int frame_rows = image.rows * image.columns;
    for (int i = 0; i < image.frames; ++i) {
      frames_.push_back({rows_, frame_rows, pages_});
      rows_ += frame_rows;
      pages_ += (frame_rows + kPageSize - 1) / kPageSize;
    }
  }
}

// Lists each buffer with its bytes.
std::vector<std::pair<DeviceBuffer*, int64_t>> Vision::Buffers() {
  const int64_t rows = int64_t{4} * rows_ * config_.hidden_size;
  const int64_t tile =
      std::max(config_.patch_values(), config_.mlp.intermediate_size);
  const int64_t merged = rows_ / (config_.merge_size * config_.merge_size);
  return {{&hidden_, rows},
          {&normed_, rows},
          {&q_, rows},
          {&k_, rows},
          {&v_, rows},
          {&z_, rows},
          {&rope_, int64_t{4} * rows_ * config_.attention.head_dim},
          {&kv_, pages_ * PageBytes()},
          {&tile_, 4 * tile_rows() * tile},
          {&embeddings_, 4 * merged * model_.config().hidden_size}};
}

int64_t Vision::bytes() const {
  int64_t bytes = 0;
  for (const auto& [buffer, size] : const_cast<Vision*>(this)->Buffers()) {
    bytes += size;
  }
  return bytes;
}

absl::Status Vision::Reserve() {
  for (const auto& [buffer, size] : Buffers()) {
    if (buffer->bytes() > 0) continue;
    QK_ASSIGN_OR_RETURN(*buffer, model_.backend()->Allocate(size));
  }
  std::vector<void*> pages;
  pages.reserve(pages_);
  for (int i = 0; i < pages_; ++i) {
    pages.push_back(kv_.as<uint8_t>() + i * PageBytes());
  }
  std::vector<SequenceRows> frames;
  for (const Frame& f : frames_) {
    frames.push_back({f.row_begin, f.rows, 0,
                      absl::MakeConstSpan(pages).subspan(
                          f.page_begin, (f.rows + kPageSize - 1) / kPageSize)});
  }
  QK_ASSIGN_OR_RETURN(row_table_, model_.backend()->MakeRowTable(frames));
  return absl::OkStatus();
}

int64_t Vision::PageBytes() const {
  return int64_t{2} * kPageSize * config_.hidden_size *
         BytesOf(model_.compute());
}

// Half of the pairs rotate by the patch's row, half by its column.
void Vision::FillRope() {
  const RopeConfig& rope = config_.attention.rope;
  const int merge = config_.merge_size;
  std::vector<RopePosition> positions;
  for (const Image& image : images_) {
    for (int64_t i = 0; i < image.patches(); ++i) {
      // `in` is the patch's index in its block, `block` the block's index in
      // its frame.
      const int in = static_cast<int>(i % (merge * merge));
      const int block = static_cast<int>(
          i % (int64_t{image.rows} * image.columns) / (merge * merge));
      const int per_row = image.columns / merge;
      positions.push_back({block / per_row * merge + in / merge,
                           block % per_row * merge + in % merge, 0});
    }
  }
  model_.backend()->MakeRopeTable(
      rope, {RopeRows{0, positions, rope.frequencies}}, rope_.as<float>());
}

// hidden = patch_embed(patches).
void Vision::Embed() {
  Backend& b = *model_.backend();
  const int64_t width = config_.patch_values();
  float *patches = tile_.as<float>(), *out = hidden_.as<float>();
  for (const Image& image : images_) {
    for (int64_t row = 0; row < image.patches(); row += tile_rows()) {
      const int n = static_cast<int>(
          std::min<int64_t>(tile_rows(), image.patches() - row));
      b.Upload(patches, image.values.data() + row * width, 4 * n * width);
      b.MatMul(patches, {{*model_.weights().vision.patch_embed, out}}, n);
      out += int64_t{n} * config_.hidden_size;
    }
  }
}

// hidden += o_proj(softmax(scale RoPE(q) RoPE(k)^T) v), each frame on its own.
void Vision::Attention(const LayerWeights& w, int layer, HookOps& ops) {
  Backend& b = *model_.backend();
  const AttentionConfig& c = config_.attention;
  float *x = normed_.as<float>(), *z = z_.as<float>();
  float *q = q_.as<float>(), *k = k_.as<float>(), *v = v_.as<float>();

  b.LayerNorm(hidden_.as<float>(), w.attention_norm.weight.as<float>(),
              w.attention_norm.bias.as<float>(), config_.norm_eps, rows_,
              config_.hidden_size, x);
  b.MatMul(x, {{*w.q_proj, q}, {*w.k_proj, k}, {*w.v_proj, v}}, rows_);
  Hook({{HookPoint::kQ, q}, {HookPoint::kK, k}, {HookPoint::kV, v}}, layer,
       ops);

  const float* rope = rope_.as<float>();
  b.Rope(q, rows_, c.num_heads, c.head_dim, c.rope.rotary_dims, rope);
  b.Rope(k, rows_, c.num_heads, c.head_dim, c.rope.rotary_dims, rope);
  Hook({{HookPoint::kRotQ, q}, {HookPoint::kRotK, k}}, layer, ops);

  const KvView kv = {row_table_.get(),
                     {0, PageBytes() / 2, c.num_heads},
                     {},
                     model_.compute()};
  b.AppendKv(k, v, c.head_dim, kv);
  b.Attention(q, c, kv, {0, rows_}, z);
  Hook({{HookPoint::kZ, z}}, layer, ops);
  b.MatMul(z, {{*w.o_proj, hidden_.as<float>(), /*add=*/true}}, rows_);
}

// hidden += down_proj(activation(up_proj(norm(hidden)))), some rows at a time.
void Vision::Mlp(const LayerWeights& w) {
  Backend& b = *model_.backend();
  const MlpConfig& c = config_.mlp;
  const int width = config_.hidden_size;
  float *x = normed_.as<float>(), *up = tile_.as<float>();
  for (int row = 0; row < rows_; row += tile_rows()) {
    const int n = std::min(tile_rows(), rows_ - row);
    float* hidden = hidden_.as<float>() + int64_t{row} * width;
    b.LayerNorm(hidden, w.mlp_norm.weight.as<float>(),
                w.mlp_norm.bias.as<float>(), config_.norm_eps, n, width, x);
    b.MatMul(x, {{*w.mlps[0].up_proj, up}}, n);
    b.Activate(up, nullptr, int64_t{n} * c.intermediate_size, c.activation);
    b.MatMul(up, {{*w.mlps[0].down_proj, hidden, /*add=*/true}}, n);
  }
}

// embeddings = down_proj(gelu(up_proj(norm(hidden)))), where merge_size x
// merge_size consecutive rows count as one.
void Vision::Merge() {
  Backend& b = *model_.backend();
  const VisionWeights& w = model_.weights().vision;
  const int merged = rows_ / (config_.merge_size * config_.merge_size);
  float *x = normed_.as<float>(), *up = z_.as<float>();
  b.LayerNorm(hidden_.as<float>(), w.merger_norm.weight.as<float>(),
              w.merger_norm.bias.as<float>(), config_.norm_eps, rows_,
              config_.hidden_size, x);
  b.MatMul(x, {{*w.merger.up_proj, up}}, merged);
  b.Activate(up, nullptr, int64_t{merged} * config_.merger.intermediate_size,
             config_.merger.activation);
  b.MatMul(up, {{*w.merger.down_proj, embeddings_.as<float>()}}, merged);
}

void Vision::RunLayer(HookOps& ops) {
  QK_CHECK(!done());
  if (next_layer_ == 0) {
    FillRope();
    Embed();
  }
  const LayerWeights& w = model_.weights().vision.layers[next_layer_];
  Attention(w, next_layer_, ops);
  Mlp(w);
  if (++next_layer_ == config_.num_layers) Merge();
}

void Vision::Hook(absl::Span<const std::pair<HookPoint, float*>> points,
                  int layer, HookOps& ops) const {
  const AttentionConfig& c = config_.attention;
  std::vector<HookedTensor> tensors;
  for (auto [point, x] : points) {
    for (size_t i = 0; i < images_.size(); ++i) {
      const int rows = static_cast<int>(images_[i].patches());
      for (const VisionHook& hook : hooks_) {
        tensors.push_back(hook(static_cast<int>(i), point,
                               {x, rows, c.num_heads, c.head_dim, 0}));
      }
      x += int64_t{rows} * config_.hidden_size;
    }
  }
  RunHooks(layer, tensors, ops);
}

}  // namespace qk
