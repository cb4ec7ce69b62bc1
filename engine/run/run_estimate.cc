#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/batch.h"
#include "engine/hooks/capture.h"
#include "engine/model/kv_cache.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/run/run.h"
#include "engine/sequence.h"

namespace qk {
namespace {

// An int64 that remembers whether its computation overflowed.
class Checked {
 public:
  Checked(int64_t value = 0) : value_(value) {}  // NOLINT: converts on purpose
  Checked operator*(Checked other) const {
    Checked r;
    r.bad_ = bad_ || other.bad_ ||
             __builtin_mul_overflow(value_, other.value_, &r.value_);
    return r;
  }
  Checked operator+(Checked other) const {
    Checked r;
    r.bad_ = bad_ || other.bad_ ||
             __builtin_add_overflow(value_, other.value_, &r.value_);
    return r;
  }
  bool bad() const { return bad_; }
  int64_t value() const { return value_; }

 private:
  int64_t value_;
  bool bad_ = false;
};

// The number of heads in a point's frames.
struct FrameHeads {
  int64_t prefill = 0;
  int64_t decode = 0;
};

FrameHeads HeadsOf(const CaptureSpec& c, const AttentionConfig& a,
                   HookPoint point, Stage stage, int layer,
                   const Disruptor& rules) {
  const auto heads = [&](Phase phase) {
    return Capture::NumHeads(c, a, point,
                             rules.copies_differ(point, layer, stage, phase));
  };
  return {heads(Phase::kPrefill), heads(Phase::kDecode)};
}

// Payload bytes of one layer, point and stage, over all phases and steps.
Checked FrameBytes(const RunSpec& spec, const AttentionConfig& a,
                   HookPoint point, const FrameHeads& heads) {
  const CaptureSpec& c = spec.capture;
  const int64_t tokens = static_cast<int64_t>(spec.tokens.size());
  const int64_t rows =
      c.positions.empty() ? tokens : static_cast<int64_t>(c.positions.size());
  const bool prefill = Has(c.phase, Phase::kPrefill);
  const bool decode = Has(c.phase, Phase::kDecode) && spec.generate.has_value();
  const int64_t steps = decode ? spec.generate->max_new_tokens : 0;
  if (c.form == CaptureForm::kNormOverTokens) {
    const int64_t in_prefill = prefill ? heads.prefill : 0;
    return Checked(in_prefill + (steps > 0 ? heads.decode : 0)) * a.head_dim *
           4;
  }
  const Checked in_prefill = Checked(prefill ? rows : 0) * heads.prefill;
  const Checked in_decode = Checked(steps) * heads.decode;
  if (c.form == CaptureForm::kNormPerToken) return (in_prefill + in_decode) * 4;
  if (point == HookPoint::kPattern) {
    return in_prefill * tokens * 4 + in_decode * (tokens + steps) * 4;
  }
  return (in_prefill + in_decode) * a.head_dim *
         (c.raw_dtype == RawDtype::kF32 ? 4 : 2);
}

// Payload bytes of all frames of a vision tower.
Checked VisionBytes(const RunSpec& spec, const AttentionConfig& a) {
  const CaptureSpec& c = spec.capture;
  Checked each;
  for (const Image& image : spec.images) {
    switch (c.form) {
      case CaptureForm::kNormOverTokens:
        each = each + Checked(a.q_size()) * 4;
        break;
      case CaptureForm::kNormPerToken:
        each = each + Checked(image.patches()) * a.num_heads * 4;
        break;
      case CaptureForm::kRaw:
        each = each + Checked(image.patches()) * a.q_size() *
                          (c.raw_dtype == RawDtype::kF32 ? 4 : 2);
        break;
    }
  }
  const int stages = Has(c.stage, Stage::kBefore) + Has(c.stage, Stage::kAfter);
  return each * static_cast<int64_t>(c.vision_layers.size()) *
         static_cast<int64_t>(c.points.size()) * stages;
}

Checked StreamBytes(const RunSpec& spec, int arm, const Disruptor& rules) {
  Checked total;
  if (spec.capture.off) return total;
  const ModelConfig& config = spec.arms[arm].model->config();
  total = VisionBytes(spec, config.vision.attention);
  for (int layer : spec.capture.layers) {
    const AttentionConfig& a = config.layers[layer].attention;
    for (HookPoint point : spec.capture.points) {
      for (Stage stage : {Stage::kBefore, Stage::kAfter}) {
        const bool once = point == HookPoint::kPattern;
        if (once ? stage == Stage::kAfter : !Has(spec.capture.stage, stage)) {
          continue;
        }
        total = total + FrameBytes(spec, a, point,
                                   HeadsOf(spec.capture, a, point, stage, layer,
                                           rules));
      }
    }
  }
  return total;
}

// The PositionLogits of one arm.
Checked LogitsBytes(const RunSpec& spec) {
  if (!spec.logits.has_value()) return 0;
  return Checked(static_cast<int64_t>(spec.logits->positions.size())) *
         (int64_t{spec.logits->top_n} * sizeof(TopLogit) +
          sizeof(PositionLogits));
}

// Rows of logits that one pass of one arm answers.
int64_t LogitsRows(const RunSpec& spec) {
  return (spec.logits.has_value()
              ? static_cast<int64_t>(spec.logits->positions.size())
              : 0) +
         (spec.score.has_value() ? spec.score->size() : 0) +
         (spec.generate.has_value() ? 1 : 0);
}

// What one arm's requests for logits take beside the PositionLogits, which
// begin as the TopLogits of all tiles.
Checked RequestBytes(const RunSpec& spec, int64_t vocab) {
  // A request with its result, its row in a tile, and the scores that it gives.
  // The allocator rounds up, large arrays to pages.
  constexpr int64_t kRowBytes = sizeof(LogitsRequest) + sizeof(LogitsResult) +
                                3 * sizeof(LogitsRow) + 192;
  constexpr int64_t kLarge = 32 << 10, kPage = 4096;
  const bool large = spec.logits.has_value() && spec.logits->top_n >= kLarge;
  const bool sampled =
      spec.generate.has_value() && spec.generate->sampling.temperature > 0;
  // The row of a token that is sampled comes whole, and is kept.
  return Checked(LogitsRows(spec)) * (kRowBytes + (large ? 2 * kPage : 0)) +
         (sampled ? Checked(vocab) * 8 : Checked(0));
}

// What all arms share while a pass answers requests, or a comparison runs: the
// TopLogits of one tile on the device, of another that becomes results, and the
// scratch of the ops and of a sampler.
Checked TileBytes(const RunSpec& spec) {
  Checked bytes;
  const Model& model = *spec.arms[0].model;
  const int64_t vocab = model.config().vocab_size;
  const int64_t scratch = model.backend()->tiles().scratch_rows;
  if (spec.logits.has_value()) {
    const int64_t rows =
        std::min(static_cast<int64_t>(spec.arms.size()) *
                     static_cast<int64_t>(spec.logits->positions.size()),
                 int64_t{model.workspace().logits_rows()});
    bytes = bytes + Checked(rows) * spec.logits->top_n * 2 * sizeof(TopLogit) +
            Checked(std::min(rows, scratch)) * vocab * 4;
  }
  if (spec.baseline.has_value()) bytes = bytes + Checked(scratch) * vocab * 4;
  if (spec.generate.has_value() && spec.generate->sampling.temperature > 0) {
    bytes = bytes + Checked(vocab) * 20;
  }
  return bytes;
}

// The number of cos and sin values per row, over the model's RoPE tables.
int64_t RopeFloats(const Model& model) {
  int64_t floats = 0;
  for (const RopeConfig& rope : model.ropes()) floats += rope.rotary_dims;
  return floats;
}

}  // namespace

absl::StatusOr<RunEstimate> Run::Estimate(const RunSpec& spec) {
  const std::atomic<bool> never{false};
  Checked stream, pages, extra, rows;
  int64_t patches = 0, staging = 0;
  for (const Image& image : spec.images) {
    patches += image.patches();
    extra = extra + Checked(image.values.size()) * 4;
  }
  const int64_t tokens = static_cast<int64_t>(spec.tokens.size());
  const int64_t continuation = static_cast<int64_t>(spec.continuation.size());
  const int64_t new_tokens =
      continuation +
      (spec.generate.has_value() ? spec.generate->max_new_tokens : 0);
  for (size_t i = 0; i < spec.arms.size(); ++i) {
    const int arm = static_cast<int>(i);
    const Sequence sequence(spec, arm, never, nullptr);
    const int64_t arm_pages = PagePool::PagesFor(tokens + new_tokens);
    stream = stream + StreamBytes(spec, arm, sequence.disruptor());
    pages = pages + arm_pages;
    rows = rows + tokens + continuation;
    const ModelConfig& config = spec.arms[i].model->config();
    if (sequence.vision() != nullptr &&
        Sequence::TowerOwner(spec, arm) == arm) {
      extra = extra + sequence.vision()->bytes();
      rows = rows + patches;
    }
    // The workspace has the first staging_bytes.
    const Tiles tiles = spec.arms[i].model->backend()->tiles();
    staging = std::max(staging, sequence.staging_bytes() - tiles.staging_bytes);
    extra =
        extra + sequence.extra_bytes() + RequestBytes(spec, config.vocab_size) +
        Checked(arm_pages) * spec.arms[i].model->pages().page_bytes() +
        Checked(sequence.max_rows()) * config.hidden_size * 4 +
        (spec.baseline.has_value() ? Checked(tokens) * sizeof(LogitsRow)
                                   : Checked(0)) +
        // cos and sin: one copy on the host, one on the device.
        Checked(sequence.max_rows()) * RopeFloats(*spec.arms[i].model) * 8 +
        Workspace::BytesForRows(
            config, std::max(0, sequence.max_rows() -
                                    spec.arms[i].model->max_rows_per_pass()));
  }
  // A pass of many rows has buffers of its own.
  for (const ArmSpec& arm : spec.arms) {
    if (rows.value() <= arm.model->backend()->tiles().step_rows) continue;
    extra = extra +
            Checked(tokens) * Batch::PauseBufferBytes(arm.model->config(), 1);
  }
  const Checked logits =
      Checked(static_cast<int64_t>(spec.arms.size())) * LogitsBytes(spec);
  extra = extra + stream + staging + logits + TileBytes(spec);
  if (logits.bad() || stream.bad() || pages.bad() || extra.bad() ||
      rows.bad()) {
    return absl::ResourceExhaustedError(
        "the request's size overflows; reduce layers/heads/positions");
  }
  return RunEstimate{stream.value(), logits.value(), pages.value(),
                     extra.value(), rows.value()};
}

}  // namespace qk
