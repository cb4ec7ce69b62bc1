// THE FORWARD PASS. Shapes: rows = all rows of the batch, prefill and decode of
// every sequence; q and z (rows, num_heads, head_dim), k and v
// (rows, num_kv_heads, head_dim), the rest (rows, hidden).
#include "engine/forward.h"

#include <algorithm>

#include "engine/batch.h"
#include "engine/check.h"
#include "engine/weights.h"

namespace qk {
namespace {

// out = o_proj(softmax(scale RoPE(q) RoPE(k)^T) v), with q, k, v of x.
void Attention(const float* x, const LayerWeights& w, const AttentionConfig& c,
               ComputeType type, int layer, Batch& batch, float* out) {
  Backend& b = batch.backend();
  const Workspace& work = batch.work();
  float *q = work.q(), *k = work.k(), *v = work.v(), *z = work.z();

  b.MatMul(x, *w.q_proj, batch.rows(), q);
  b.MatMul(x, *w.k_proj, batch.rows(), k);
  b.MatMul(x, *w.v_proj, batch.rows(), v);
  batch.BeginAttention(layer);
  batch.Hook(HookPoint::kQ, layer);
  batch.Hook(HookPoint::kK, layer);
  batch.Hook(HookPoint::kV, layer);

  if (w.rope != nullptr) {
    const int rotary = c.rope.rotary_dims;
    b.Rope(q, c.num_heads, c.head_dim, rotary, w.rope, batch.positions());
    b.Rope(k, c.num_kv_heads, c.head_dim, rotary, w.rope, batch.positions());
    batch.RopeCopies(c, w.rope);
  }
  batch.Hook(HookPoint::kRotQ, layer);
  batch.Hook(HookPoint::kRotK, layer);

  batch.Append(layer);
  b.Attention(q, c, batch.attention_rows(), type, z);
  batch.HookPattern(layer);
  batch.Hook(HookPoint::kZ, layer);
  b.MatMul(z, *w.o_proj, batch.rows(), out);
}

// hidden += down_proj(activation(gate_proj(x)) * up_proj(x)), x the norm of
// hidden; some rows at a time, so that what lies between stays in the cache.
void Mlp(const LayerWeights& w, const MlpConfig& c, const ModelConfig& config,
         Batch& batch) {
  Backend& b = batch.backend();
  const Workspace& work = batch.work();
  const int width = config.hidden_size;
  for (int row = 0; row < batch.rows(); row += Workspace::kMlpRows) {
    const int n = std::min(Workspace::kMlpRows, batch.rows() - row);
    float* hidden = batch.hidden() + int64_t{row} * width;
    float *x = work.normed(), *gate = work.gate(), *up = work.up();
    b.RmsNorm(hidden, w.mlp_norm.as<float>(), config.norm_eps, n, width, x);
    b.MatMul(x, *w.gate_proj, n, gate);
    b.MatMul(x, *w.up_proj, n, up);
    b.GatedActivation(gate, up, int64_t{n} * c.intermediate_size, c.activation);
    b.MatMul(gate, *w.down_proj, n, x);
    b.Add(hidden, x, int64_t{n} * width);
  }
}

// hidden += Attention(norm(hidden)); hidden += Mlp(norm(hidden)).
void Block(const Model& model, int layer, Batch& batch) {
  const ModelConfig& config = model.config();
  const LayerConfig& c = config.layers[layer];
  const LayerWeights& w = model.weights().layers[layer];
  Backend& b = batch.backend();
  float* x = batch.work().normed();
  b.RmsNorm(batch.hidden(), w.attention_norm.as<float>(), config.norm_eps,
            batch.rows(), config.hidden_size, x);
  Attention(x, w, c.attention, model.compute(), layer, batch, x);
  b.Add(batch.hidden(), x, int64_t{batch.rows()} * config.hidden_size);
  Mlp(w, c.mlp, config, batch);
}

}  // namespace

Pass::Pass(const Model& model, absl::Span<Sequence* const> sequences)
    : model_(model), batch_(std::make_unique<Batch>(model, sequences)) {
  rows_ = batch_->rows();
  if (!batch_->status().ok()) return;
  batch_->backend().Embed(model.weights().embedding.as<void>(), model.compute(),
                          batch_->tokens(), model.config().hidden_size,
                          batch_->hidden());
}

Pass::~Pass() = default;

bool Pass::done() const {
  return !batch_->status().ok() || batch_->rows() == 0 ||
         next_layer_ == model_.config().num_layers();
}

void Pass::RunLayer() {
  QK_CHECK(!done());
  batch_->DropCancelled();
  if (batch_->rows() == 0) return;
  Block(model_, next_layer_++, *batch_);
  for (Batch::Entry& entry : batch_->entries()) entry.sequence->Deliver();
}

absl::Status Pass::Finish() {
  if (!batch_->status().ok()) return batch_->status();
  batch_->DropCancelled();
  if (batch_->rows() > 0) batch_->Head();
  const absl::Status status = batch_->backend().Synchronize();
  for (Batch::Entry& entry : batch_->entries()) {
    entry.sequence->Deliver();
    entry.sequence->Advance(entry.step);
  }
  return status;
}

int Pass::rows() const { return rows_; }

}  // namespace qk
