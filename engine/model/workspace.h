// The scratch memory of a model's passes: what lives within one layer or one
// tile of logits. One thread at a time uses it.
#ifndef QKSCOPE_ENGINE_MODEL_WORKSPACE_H_
#define QKSCOPE_ENGINE_MODEL_WORKSPACE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/types/model_config.h"

namespace qk {

class Workspace {
 public:
  Workspace(const ModelConfig& config, Backend* backend);

  // Makes room for passes of `rows` rows. Not to be called within a layer.
  // RESOURCE_EXHAUSTED: there is no memory.
  absl::Status Reserve(int64_t rows);
  // Makes room for results of `bytes` on their way to the host (HookOps).
  absl::Status ReserveStaging(int64_t bytes);
  // The number of rows that fit.
  int64_t rows() const { return rows_; }
  // The number of rows that an MLP works on at once.
  int mlp_rows() const { return tiles_.mlp_rows; }
  // The number of rows in a tile of logits.
  int logits_rows() const { return logits_rows_; }

  static int64_t BytesForRows(const ModelConfig& config, int64_t rows);
  // The largest number of floats in a row of q, and in a row of hidden values
  // or embedding.
  static int64_t WidestQuery(const ModelConfig& config);
  static int64_t WidestHidden(const ModelConfig& config);
  int64_t bytes() const;

  // Results on their way to the host, within one step.
  const DeviceBuffer& staging() const { return staging_; }
  float* normed() const { return normed_.as<float>(); }  // (rows, hidden)
  float* q() const { return q_.as<float>(); }  // (rows, heads, head_dim)
  float* k() const { return k_.as<float>(); }  // (rows, kv_heads, head_dim)
  float* v() const { return v_.as<float>(); }  // (rows, kv_heads, head_dim)
  float* z() const { return z_.as<float>(); }  // (rows, heads, head_dim)
  float* mlp_in() const { return mlp_in_.as<float>(); }    // (mlp_rows, hidden)
  float* mlp_out() const { return mlp_out_.as<float>(); }  // (mlp_rows, hidden)
  float* gate() const { return gate_.as<float>(); }        // (mlp_rows, inter)
  float* up() const { return up_.as<float>(); }            // (mlp_rows, inter)
  // Mamba layers: (rows, inner), (rows, dt_rank) and (rows, state).
  float* mamba_x() const { return mamba_x_.as<float>(); }
  float* mamba_gate() const { return mamba_gate_.as<float>(); }
  float* mamba_dt() const { return mamba_dt_.as<float>(); }
  float* mamba_dt_low() const { return mamba_dt_low_.as<float>(); }
  float* mamba_b() const { return mamba_b_.as<float>(); }
  float* mamba_c() const { return mamba_c_.as<float>(); }
  // Experts: (mlp_rows, num_experts), (mlp_rows, experts_per_token), and for
  // their places (mlp_rows * experts_per_token, hidden) twice. gate and up have
  // as many rows.
  float* router() const { return router_.as<float>(); }
  float* expert_in() const { return expert_in_.as<float>(); }
  float* expert_out() const { return expert_out_.as<float>(); }
  Route* routes() const { return routes_.as<Route>(); }
  const ExpertPlaces& expert_places() const { return expert_places_; }
  // Two tiles (logits_rows, vocab), what each reduces to (logits_rows), and
  // the divergences (logits_rows) of one from the other.
  float* logits(int i) const { return logits_[i].as<float>(); }
  LogitsRow* reduced(int i) const { return reduced_[i].as<LogitsRow>(); }
  float* kl() const { return kl_.as<float>(); }
  // The rows (logits_rows, hidden) of a tile, before and after the final norm.
  float* lm_head_rows() const { return lm_head_rows_.as<float>(); }
  float* lm_head_normed() const { return lm_head_normed_.as<float>(); }

 private:
  absl::Status Grow(DeviceBuffer* buffer, int64_t floats);

  const ModelConfig& config_;
  Backend* backend_;
  const Tiles tiles_;
  int64_t rows_ = 0;
  int logits_rows_ = 0;
  DeviceBuffer staging_;
  DeviceBuffer normed_, q_, k_, v_, z_, mlp_in_, mlp_out_, gate_, up_;
  DeviceBuffer mamba_x_, mamba_gate_, mamba_dt_, mamba_dt_low_, mamba_b_,
      mamba_c_;
  DeviceBuffer router_, expert_in_, expert_out_, routes_, places_;
  ExpertPlaces expert_places_;  // in places_
  DeviceBuffer logits_[2], reduced_[2], kl_, lm_head_rows_, lm_head_normed_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_WORKSPACE_H_
