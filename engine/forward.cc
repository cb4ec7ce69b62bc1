// THE FORWARD PASS. Shapes: rows = all rows of the batch, from every sequence's
// prefill or decode; q and z (rows, num_heads, head_dim), k and v
// (rows, num_kv_heads, head_dim), the rest (rows, hidden).
#include "engine/forward.h"

#include <algorithm>
#include <vector>

#include "engine/base/check.h"
#include "engine/batch.h"
#include "engine/lm_head.h"
#include "engine/model/weights.h"

namespace qk {
namespace {

// out = [out +] o_proj(softmax(scale RoPE(q) RoPE(k)^T) v), where q, k and v
// are x's projections.
Steps Attention(const float* x, const LayerWeights& w, const AttentionConfig& c,
                int layer, Batch& batch, float* out, bool add) {
  Backend& b = batch.backend();
  const Workspace& work = batch.work();
  const int rows = batch.rows();
  float *q = batch.q(), *k = work.k(), *v = work.v(), *z = batch.z();

  b.MatMul(x, {{*w.q_proj, q}, {*w.k_proj, k}, {*w.v_proj, v}}, rows);
  batch.BeginAttention(layer);
  batch.Hook({HookPoint::kQ, HookPoint::kK, HookPoint::kV}, layer);

  if (c.qk_norm) {
    const float eps = batch.model().config().norm_eps;
    const float* k_norm = w.k_norm.as<float>();
    b.RmsNorm(q, w.q_norm.as<float>(), eps, rows * c.num_heads, c.head_dim, q);
    b.RmsNorm(k, k_norm, eps, rows * c.num_kv_heads, c.head_dim, k);
    batch.NormCopies(c, k_norm, eps);
  }
  if (const float* rope = batch.rope(layer); rope != nullptr) {
    const int rotary = c.rope.rotary_dims;
    b.Rope(q, rows, c.num_heads, c.head_dim, rotary, rope);
    b.Rope(k, rows, c.num_kv_heads, c.head_dim, rotary, rope);
    batch.RopeCopies(c, rope);
  }
  batch.Hook({HookPoint::kRotQ, HookPoint::kRotK}, layer);

  batch.Append(layer);
  for (const Range& part : batch.attention_parts()) {
    if (part.begin > 0 && batch.may_pause()) co_yield kPause;
    b.Attention(q, c, batch.kv(layer), part, z);
  }
  batch.HookPattern(layer);
  batch.Hook({HookPoint::kZ}, layer);
  if (layer + 1 == batch.model().config().num_layers()) batch.KeepLastRows(c);
  if (batch.rows() > 0) b.MatMul(z, {{*w.o_proj, out, add}}, batch.rows());
}

// out = [out +] out_proj(scan(silu(conv(x_proj(x)))) * silu(gate_proj(x))):
// a state-space mixer (arXiv:2312.00752) that normalises dt, B and C (Jamba).
void Mamba(const float* x, const MambaWeights& w, const MambaConfig& c,
           int layer, Batch& batch, float* out, bool add) {
  Backend& b = batch.backend();
  const Workspace& work = batch.work();
  const int rows = batch.rows();
  const float eps = batch.model().config().norm_eps;
  const int64_t state = batch.model().config().mamba_state_offset(layer);
  float *u = work.mamba_x(), *dt = work.mamba_dt(), *low = work.mamba_dt_low();

  b.MatMul(x, {{*w.x_proj, u}, {*w.gate_proj, work.mamba_gate()}}, rows);
  b.CausalConvSilu(u, batch.row_table(), c.inner_size, c.conv_kernel,
                   w.conv.as<float>(), w.conv_bias.as<float>(), state);
  b.MatMul(u,
           {{*w.dt_low, low},
            {*w.b_proj, work.mamba_b()},
            {*w.c_proj, work.mamba_c()}},
           rows);
  b.RmsNorm(low, w.dt_norm.as<float>(), eps, rows, c.dt_rank, low);
  b.RmsNorm(work.mamba_b(), w.b_norm.as<float>(), eps, rows, c.state_size,
            work.mamba_b());
  b.RmsNorm(work.mamba_c(), w.c_norm.as<float>(), eps, rows, c.state_size,
            work.mamba_c());
  b.MatMul(low, {{*w.dt_proj, dt}}, rows);
  b.SelectiveScan({dt, work.mamba_b(), work.mamba_c(), work.mamba_gate(),
                   w.a_log.as<float>(), w.d.as<float>()},
                  batch.row_table(), c.inner_size, c.state_size,
                  state + c.conv_floats(), u);
  b.MatMul(u, {{*w.out_proj, out, add}}, rows);
}

// out (n, hidden) = [out +] down_proj(activation(gate_proj(x)) * up_proj(x)),
// or, in a model without gates, down_proj(activation(up_proj(x))).
void Mlp(const float* x, const MlpWeights& w, const MlpConfig& c, int n,
         Batch& batch, float* out, bool add) {
  Backend& b = batch.backend();
  float *gate = batch.work().gate(), *up = batch.work().up();
  const int64_t size = int64_t{n} * c.intermediate_size;
  if (c.gated) {
    b.MatMul(x, {{*w.gate_proj, gate}, {*w.up_proj, up}}, n);
    b.Activate(gate, up, size, c.activation);
  } else {
    b.MatMul(x, {{*w.up_proj, gate}}, n);
    b.Activate(gate, nullptr, size, c.activation);
  }
  b.MatMul(gate, {{*w.down_proj, out, add}}, n);
}

// out (n, hidden) = each row's sum over its experts, weighted by their
// probabilities. Rows are grouped by expert, and each expert, which has gates,
// runs once over all of its rows; a row's sum runs over ascending experts.
void Experts(const float* x, const LayerWeights& w, const MlpConfig& c, int n,
             Batch& batch, float* out) {
  Backend& b = batch.backend();
  const Workspace& work = batch.work();
  const int width = batch.model().config().hidden_size;
  const int chosen = c.experts_per_token, places = n * chosen;
  const ExpertPlaces& group = work.expert_places();
  float *in = work.expert_in(), *gate = work.gate(), *up = work.up();
  const auto each = [&](const auto& multiply) {
    for (int e = 0; e < c.num_experts; ++e)
      multiply(w.mlps[e], group.begin + e);
  };

  b.MatMul(x, {{*w.router, work.router()}}, n);
  b.RouteExperts(work.router(), n, c.num_experts, chosen, work.routes());
  b.GroupRows(work.routes(), n, chosen, c.num_experts, group);
  b.GatherPlaces(x, group.row, places, width, in);
  each([&](const MlpWeights& mlp, const int32_t* range) {
    b.MatMulRange(in, {{*mlp.gate_proj, gate}, {*mlp.up_proj, up}}, places,
                  range);
  });
  b.Activate(gate, up, int64_t{places} * c.intermediate_size, c.activation);
  each([&](const MlpWeights& mlp, const int32_t* range) {
    b.MatMulRange(gate, {{*mlp.down_proj, work.expert_out()}}, places, range);
  });
  b.CombineExperts(work.expert_out(), work.routes(), group, n, chosen, width,
                   out);
}

// hidden += Mlp(norm(hidden)), some rows at a time, so that the intermediate
// values stay in the processor's cache. `NormPlacement` says where the norms
// are.
Steps MlpHalf(const LayerWeights& w, const MlpConfig& c, Batch& batch) {
  const ModelConfig& config = batch.model().config();
  Backend& b = batch.backend();
  const int width = config.hidden_size;
  const bool post = config.norm_placement == NormPlacement::kPost;
  const bool sandwich = config.norm_placement == NormPlacement::kSandwich;
  const bool add = !sandwich && c.num_experts <= 1;
  const int tile = batch.work().mlp_rows();
  for (int row = 0; row < batch.rows(); row += tile) {
    const int n = std::min(tile, batch.rows() - row);
    float* hidden = batch.hidden() + int64_t{row} * width;
    float *x = batch.work().mlp_in(),
          *y = add ? hidden : batch.work().mlp_out();
    if (!post) Norm(config, w.mlp_norm, hidden, n, x, b);
    if (c.num_experts > 1) {
      Experts(post ? hidden : x, w, c, n, batch, y);
    } else {
      Mlp(post ? hidden : x, w.mlps[0], c, n, batch, y, add);
    }
    if (sandwich) Norm(config, w.post_mlp_norm, y, n, y, b);
    if (!add) b.Add(hidden, y, int64_t{n} * width);
    if (post) Norm(config, w.mlp_norm, hidden, n, hidden, b);
    if (batch.may_pause()) co_yield kPause;
  }
}

}  // namespace

// hidden += Attention(norm(hidden)); hidden += Mlp(norm(hidden)). With
// parallel_residual both start from the same hidden. A Mamba mixer may replace
// attention.
Steps Block(int layer, Batch& batch) {
  const ModelConfig& config = batch.model().config();
  const LayerConfig& c = config.layers[layer];
  const LayerWeights& w = batch.model().weights().layers[layer];
  Backend& b = batch.backend();
  const bool post = config.norm_placement == NormPlacement::kPost;
  const bool sandwich = config.norm_placement == NormPlacement::kSandwich;
  const bool add = !sandwich && !config.parallel_residual;
  float *hidden = batch.hidden(), *x = batch.x(), *out = add ? hidden : x;

  if (!post) Norm(config, w.attention_norm, hidden, batch.rows(), x, b);
  if (c.mamba.inner_size > 0) {
    Mamba(post ? hidden : x, w.mamba, c.mamba, layer, batch, out, add);
  } else {
    Steps attention =
        Attention(post ? hidden : x, w, c.attention, layer, batch, out, add);
    while (attention.Next()) co_yield kPause;
  }
  // The last layer goes on with the rows that are needed, which may be none.
  const int rows = batch.rows();
  const int64_t size = int64_t{rows} * config.hidden_size;
  if (rows == 0) co_return;
  if (sandwich) {
    Norm(config, w.post_attention_norm, x, rows, x, b);
    if (!config.parallel_residual) b.Add(hidden, x, size);
  }
  if (post) Norm(config, w.attention_norm, hidden, rows, hidden, b);
  for (Steps mlp = MlpHalf(w, c.mlp, batch); mlp.Next();) co_yield kPause;
  if (config.parallel_residual) b.Add(hidden, x, size);
}

// hidden = scale * embedding [projected to the hidden size] [+ positions].
void Embed(Batch& batch) {
  const Model& model = batch.model();
  const ModelConfig& c = model.config();
  const Weights& w = model.weights();
  Backend& b = batch.backend();
  const int rows = batch.rows();
  const int64_t size = int64_t{rows} * c.hidden_size;
  float *hidden = batch.hidden(), *x = batch.work().normed();
  const auto look_up = [&](const DeviceBuffer& table, int width,
                           absl::Span<const int32_t> ids, float* out) {
    b.Embed(table.as<void>(), model.compute(), ids, width, out);
  };
  if (w.project_in == nullptr) {
    look_up(w.embedding, c.hidden_size, batch.tokens(), hidden);
  } else {
    look_up(w.embedding, c.embedding_size, batch.tokens(), x);
    b.MatMul(x, {{*w.project_in, hidden}}, rows);
  }
  if (c.embedding_scale != 1.0f) b.Scale(hidden, size, c.embedding_scale);
  if (c.position_rows > 0) {
    look_up(w.positions, c.hidden_size, batch.positions(c.position_offset), x);
    b.Add(hidden, x, size);
  }
}

// hidden = the tower's embeddings in the rows of image placeholders.
void PlaceImages(Batch& batch) {
  const int64_t width = batch.model().config().hidden_size;
  std::vector<CopyJob> copies;
  for (const Batch::Entry& entry : batch.entries()) {
    if (entry.sequence->vision() == nullptr ||
        entry.span.phase != Phase::kPrefill) {
      continue;
    }
    const float* rows = entry.sequence->vision()->embeddings();
    for (const Range& place : entry.sequence->image_places()) {
      copies.push_back(
          {batch.hidden() + (entry.row_begin + place.begin) * width, rows,
           4 * place.size() * width});
      rows += place.size() * width;
    }
  }
  batch.backend().CopyOnDevice(copies);
}

}  // namespace qk
