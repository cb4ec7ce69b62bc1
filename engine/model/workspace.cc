#include "engine/model/workspace.h"

#include <algorithm>

#include "engine/base/check.h"

namespace qk {
namespace {

struct Widest {
  int64_t q = 0, kv = 0, intermediate = 0, experts = 0, routes = 0;
  int64_t inner = 0, state = 0, dt_rank = 0;
};

Widest WidestLayer(const ModelConfig& config) {
  Widest w;
  for (const LayerConfig& layer : config.layers) {
    w.q = std::max<int64_t>(w.q, layer.attention.q_size());
    w.kv = std::max<int64_t>(w.kv, layer.attention.kv_size());
    w.intermediate =
        std::max<int64_t>(w.intermediate, layer.mlp.intermediate_size);
    if (layer.mlp.num_experts > 1) {
      w.experts = std::max<int64_t>(w.experts, layer.mlp.num_experts);
      w.routes = std::max<int64_t>(w.routes, layer.mlp.experts_per_token);
    }
    w.inner = std::max<int64_t>(w.inner, layer.mamba.inner_size);
    w.state = std::max<int64_t>(w.state, layer.mamba.state_size);
    w.dt_rank = std::max<int64_t>(w.dt_rank, layer.mamba.dt_rank);
  }
  return w;
}

}  // namespace

Workspace::Workspace(const ModelConfig& config, Backend* backend)
    : config_(config), backend_(backend), tiles_(backend->tiles()) {
  logits_rows_ = static_cast<int>(std::clamp<int64_t>(
      tiles_.logits_bytes / (4 * int64_t{config.vocab_size}), 1,
      tiles_.logits_rows));
}

int64_t Workspace::BytesForRows(const ModelConfig& config, int64_t rows) {
  const Widest w = WidestLayer(config);
  const int64_t hidden = std::max(config.hidden_size, config.embedding_size);
  return rows *
         (hidden + 2 * w.q + 2 * w.kv + 3 * w.inner + 2 * w.state + w.dt_rank) *
         4;
}

int64_t Workspace::WidestQuery(const ModelConfig& config) {
  return WidestLayer(config).q;
}

int64_t Workspace::WidestHidden(const ModelConfig& config) {
  return std::max(config.hidden_size, config.embedding_size);
}

absl::Status Workspace::Grow(DeviceBuffer* buffer, int64_t floats) {
  const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
  if (buffer->bytes() >= bytes) return absl::OkStatus();
  absl::StatusOr<DeviceBuffer> larger = backend_->Allocate(bytes);
  if (!larger.ok()) return larger.status();
  *buffer = *std::move(larger);
  return absl::OkStatus();
}

absl::Status Workspace::Reserve(int64_t rows) {
  rows_ = std::max(rows_, rows);
  QK_RETURN_IF_ERROR(ReserveStaging(tiles_.staging_bytes));
  const Widest w = WidestLayer(config_);
  const int64_t hidden = std::max(config_.hidden_size, config_.embedding_size);
  QK_RETURN_IF_ERROR(Grow(&normed_, rows_ * hidden));
  QK_RETURN_IF_ERROR(Grow(&q_, rows_ * w.q));
  QK_RETURN_IF_ERROR(Grow(&k_, rows_ * w.kv));
  QK_RETURN_IF_ERROR(Grow(&v_, rows_ * w.kv));
  QK_RETURN_IF_ERROR(Grow(&z_, rows_ * w.q));
  for (DeviceBuffer* inner : {&mamba_x_, &mamba_gate_, &mamba_dt_}) {
    QK_RETURN_IF_ERROR(Grow(inner, rows_ * w.inner));
  }
  QK_RETURN_IF_ERROR(Grow(&mamba_dt_low_, rows_ * w.dt_rank));
  QK_RETURN_IF_ERROR(Grow(&mamba_b_, rows_ * w.state));
  QK_RETURN_IF_ERROR(Grow(&mamba_c_, rows_ * w.state));
  QK_RETURN_IF_ERROR(Grow(&router_, int64_t{tiles_.mlp_rows} * w.experts));
  constexpr int64_t kRouteFloats = sizeof(Route) / sizeof(float);
  QK_RETURN_IF_ERROR(
      Grow(&routes_, int64_t{tiles_.mlp_rows} * w.routes * kRouteFloats));
  const int64_t places = int64_t{tiles_.mlp_rows} * w.routes;
  QK_RETURN_IF_ERROR(Grow(&expert_in_, places * hidden));
  QK_RETURN_IF_ERROR(Grow(&expert_out_, places * hidden));
  QK_RETURN_IF_ERROR(Grow(&places_, 2 * places + w.experts + 1));
  expert_places_.begin = places_.as<int32_t>();
  expert_places_.row = expert_places_.begin + w.experts + 1;
  expert_places_.of_route = expert_places_.row + places;
  const int64_t mlp_rows = std::max<int64_t>(tiles_.mlp_rows, places);
  QK_RETURN_IF_ERROR(Grow(&mlp_in_, int64_t{tiles_.mlp_rows} * hidden));
  QK_RETURN_IF_ERROR(Grow(&mlp_out_, int64_t{tiles_.mlp_rows} * hidden));
  QK_RETURN_IF_ERROR(Grow(&gate_, mlp_rows * w.intermediate));
  QK_RETURN_IF_ERROR(Grow(&up_, mlp_rows * w.intermediate));
  for (DeviceBuffer& tile : logits_) {
    QK_RETURN_IF_ERROR(Grow(&tile, int64_t{logits_rows_} * config_.vocab_size));
  }
  constexpr int64_t kReducedFloats = sizeof(LogitsRow) / sizeof(float);
  for (DeviceBuffer& rows : reduced_) {
    QK_RETURN_IF_ERROR(Grow(&rows, logits_rows_ * kReducedFloats));
  }
  QK_RETURN_IF_ERROR(Grow(&kl_, logits_rows_));
  QK_RETURN_IF_ERROR(Grow(&lm_head_normed_, logits_rows_ * hidden));
  return Grow(&lm_head_rows_, logits_rows_ * hidden);
}

absl::Status Workspace::ReserveStaging(int64_t bytes) {
  return Grow(&staging_, (bytes + 3) / 4);
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const DeviceBuffer* b : {&staging_,
                                &normed_,
                                &q_,
                                &k_,
                                &v_,
                                &z_,
                                &mlp_in_,
                                &mlp_out_,
                                &gate_,
                                &up_,
                                &logits_[0],
                                &logits_[1],
                                &reduced_[0],
                                &reduced_[1],
                                &kl_,
                                &lm_head_rows_,
                                &lm_head_normed_,
                                &mamba_x_,
                                &mamba_gate_,
                                &mamba_dt_,
                                &mamba_dt_low_,
                                &mamba_b_,
                                &mamba_c_,
                                &router_,
                                &expert_in_,
                                &expert_out_,
                                &routes_,
                                &places_}) {
    total += b->bytes();
  }
  return total;
}

}  // namespace qk
