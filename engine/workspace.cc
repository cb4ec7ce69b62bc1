#include "engine/workspace.h"

#include <algorithm>

#include "engine/check.h"

namespace qk {
namespace {

// A tile of logits holds about this many bytes: enough rows to pay for reading
// the head's weights once, without a buffer of the whole prompt.
constexpr int64_t kLogitsBytes = int64_t{24} << 20;
constexpr int64_t kMaxLogitsRows = 128;

struct Widest {
  int64_t q = 0, kv = 0, intermediate = 0;
};

Widest WidestLayer(const ModelConfig& config) {
  Widest w;
  for (const LayerConfig& layer : config.layers) {
    w.q = std::max<int64_t>(w.q, layer.attention.q_size());
    w.kv = std::max<int64_t>(w.kv, layer.attention.kv_size());
    w.intermediate =
        std::max<int64_t>(w.intermediate, layer.mlp.intermediate_size);
  }
  return w;
}

}  // namespace

Workspace::Workspace(const ModelConfig& config, Backend* backend)
    : config_(config), backend_(backend) {
  logits_rows_ = static_cast<int>(std::clamp<int64_t>(
      kLogitsBytes / (4 * int64_t{config.vocab_size}), 1, kMaxLogitsRows));
}

int64_t Workspace::BytesForRows(const ModelConfig& config, int64_t rows) {
  const Widest w = WidestLayer(config);
  return rows * (config.hidden_size + 2 * w.q + 2 * w.kv) * 4;
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
  const Widest w = WidestLayer(config_);
  QK_RETURN_IF_ERROR(Grow(&normed_, rows_ * config_.hidden_size));
  QK_RETURN_IF_ERROR(Grow(&q_, rows_ * w.q));
  QK_RETURN_IF_ERROR(Grow(&k_, rows_ * w.kv));
  QK_RETURN_IF_ERROR(Grow(&v_, rows_ * w.kv));
  QK_RETURN_IF_ERROR(Grow(&z_, rows_ * w.q));
  QK_RETURN_IF_ERROR(Grow(&gate_, kMlpRows * w.intermediate));
  QK_RETURN_IF_ERROR(Grow(&up_, kMlpRows * w.intermediate));
  for (DeviceBuffer& tile : logits_) {
    QK_RETURN_IF_ERROR(Grow(&tile, int64_t{logits_rows_} * config_.vocab_size));
  }
  return Grow(&head_rows_, int64_t{logits_rows_} * config_.hidden_size);
}

int64_t Workspace::bytes() const {
  int64_t total = 0;
  for (const DeviceBuffer* b : {&normed_, &q_, &k_, &v_, &z_, &gate_, &up_,
                                &logits_[0], &logits_[1], &head_rows_}) {
    total += b->bytes();
  }
  return total;
}

}  // namespace qk
