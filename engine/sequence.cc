#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/images.h"
#include "engine/types/rule_shape.h"

namespace qk {
namespace {

bool DisruptsVision(const std::vector<DisruptionRule>& rules) {
  return absl::c_any_of(rules,
                        [](const DisruptionRule& rule) { return rule.vision; });
}

}  // namespace

int Sequence::TowerOwner(const RunSpec& spec, int arm) {
  if (DisruptsVision(spec.arms[arm].rules)) return arm;
  for (int i = 0; i < arm; ++i) {
    if (spec.arms[i].model == spec.arms[arm].model &&
        !DisruptsVision(spec.arms[i].rules)) {
      return i;
    }
  }
  return arm;
}

Sequence::Sequence(const RunSpec& spec, int arm,
                   const std::atomic<bool>& cancelled, RunSink* sink,
                   std::shared_ptr<Vision> vision)
    : spec_(spec),
      arm_(arm),
      cancelled_(cancelled),
      sink_(sink),
      tokens_(spec.tokens),
      vision_(std::move(vision)),
      shares_vision_(vision_ != nullptr),
      disruptor_(spec.arms[arm].model->config(), spec.arms[arm].rules,
                 static_cast<int>(spec.tokens.size()), arm),
      capture_(spec.arms[arm].model->config(), spec, arm) {
  // Nothing follows the last token of the continuation.
  if (!spec.continuation.empty()) {
    tokens_.insert(tokens_.end(), spec.continuation.begin(),
                   spec.continuation.end() - 1);
  }
  if (!spec.images.empty()) SetImages();
  decode_rows_ = MaxDecodeRows();
}

void Sequence::SetImages() {
  const std::vector<Image>& images = spec_.images;
  const std::vector<DisruptionRule>& rules = spec_.arms[arm_].rules;
  const VisionConfig& config = model().config().vision;
  if (vision_ == nullptr) vision_ = std::make_shared<Vision>(model(), images);
  // Another arm may run the tower's layers long before this one is in a pass.
  vision_->AddHook([this](int image, HookPoint point, const HeadRows& x) {
    return HookVision(image, point, x);
  });
  if (DisruptsVision(rules)) {
    vision_disruptors_.reserve(images.size());
    for (size_t i = 0; i < images.size(); ++i) {
      vision_disruptors_.emplace_back(model().config(), rules,
                                      static_cast<int>(images[i].patches()),
                                      arm_, static_cast<int>(i));
    }
  }
  image_places_ = PlaceImages(images, spec_.tokens, config);
  rope_positions_ = ImagePositions(images, spec_.tokens, config);
  int last = 0;
  for (const RopePosition& position : rope_positions_) {
    last = std::max(last, *std::max_element(position.begin(), position.end()));
  }
  decode_shift_ = last + 1 - prompt_tokens();
}

int Sequence::max_positions() const {
  return prompt_tokens() + static_cast<int>(spec_.continuation.size()) +
         (spec_.generate.has_value() ? spec_.generate->max_new_tokens : 0);
}

// The most decode rows that a pass may have.
int Sequence::MaxDecodeRows() const {
  constexpr int kTogether = 256;
  const bool many = !spec_.continuation.empty() ||
                    MustRecompute(prompt_tokens(), max_positions());
  if (!many || absl::c_any_of(spec_.arms[arm_].rules, DecodesRowByRow)) {
    return 1;
  }
  return std::min({kTogether, max_positions() - prompt_tokens(),
                   model().max_rows_per_pass()});
}

bool Sequence::MustRecompute(int from, int to) const {
  return absl::c_any_of(model().ropes(), [&](const RopeConfig& rope) {
    return rope.MustRecompute(rope_length(from), rope_length(to));
  });
}

int Sequence::rope_length(int positions) const {
  return std::max(positions + decode_shift_, least_rope_length_);
}

namespace {

int MaxHeadDim(const ModelConfig& config) {
  int dim = 0;
  for (const LayerConfig& layer : config.layers) {
    dim = std::max(dim, layer.attention.head_dim);
  }
  return dim;
}

}  // namespace

int64_t Sequence::extra_bytes() const {
  const ModelConfig& config = model().config();
  int64_t bytes =
      disruptor_.bytes() + capture_.bytes() + 4 * config.mamba_state_floats();
  for (const Disruptor& image : vision_disruptors_) bytes += image.bytes();
  if (disruptor_.needs_copy()) {
    const int64_t position =
        int64_t{disruptor_.copy_heads()} * MaxHeadDim(config) * 2;
    bytes += position * max_rows() * 4;
    bytes += position * kPageSize * BytesOf(model().compute()) *
             PagePool::PagesFor(max_positions());
  }
  if (spec_.baseline.has_value()) {
    bytes += int64_t{4} * prompt_tokens() * config.embedding_size;
  }
  return bytes;
}

int64_t Sequence::staging_bytes() const {
  int64_t bytes =
      std::max(disruptor_.staging_bytes(), capture_.staging_bytes());
  for (const Disruptor& image : vision_disruptors_) {
    bytes = std::max(bytes, image.staging_bytes());
  }
  return bytes;
}

HookOps Sequence::MakeHookOps() const {
  return HookOps(model().backend(), model().workspace().staging());
}

absl::Status Sequence::Reserve() {
  Backend* backend = model().backend();
  const ModelConfig& config = model().config();
  QK_ASSIGN_OR_RETURN(
      pages_, model().pages().Take(PagePool::PagesFor(max_positions())));
  page_list_ = pages_.pages();
  QK_RETURN_IF_ERROR(model().workspace().Reserve(max_rows()));
  QK_RETURN_IF_ERROR(model().workspace().ReserveStaging(staging_bytes()));
  QK_RETURN_IF_ERROR(disruptor_.Reserve(backend));
  for (Disruptor& image : vision_disruptors_) {
    QK_RETURN_IF_ERROR(image.Reserve(backend));
  }
  QK_RETURN_IF_ERROR(capture_.Reserve(backend));
  if (vision_ != nullptr) QK_RETURN_IF_ERROR(vision_->Reserve());
  if (const int64_t floats = config.mamba_state_floats(); floats > 0) {
    QK_ASSIGN_OR_RETURN(mamba_states_, backend->Allocate(4 * floats));
    backend->Zero(mamba_states_.as<void>(), 4 * floats);
  }
  if (disruptor_.needs_copy()) {
    const int64_t position =
        int64_t{disruptor_.copy_heads()} * MaxHeadDim(config);
    QK_ASSIGN_OR_RETURN(k_copy_, backend->Allocate(position * max_rows() * 4));
    QK_ASSIGN_OR_RETURN(v_copy_, backend->Allocate(position * max_rows() * 4));
    QK_ASSIGN_OR_RETURN(
        fresh_, backend->Allocate(2 * position * kPageSize *
                                  BytesOf(model().compute()) * pages_.size()));
  }
  if (spec_.baseline.has_value()) {
    QK_ASSIGN_OR_RETURN(kept_rows_,
                        backend->Allocate(int64_t{4} * prompt_tokens() *
                                          config.embedding_size));
  }
  return absl::OkStatus();
}

RowSpan Sequence::NextSpan() const {
  RowSpan span;
  span.first_position = cached_;
  int end = prompt_tokens();
  if (!in_prefill()) {
    span.phase = Phase::kDecode;
    span.step = cached_ - prompt_tokens();
    end = std::min(cached_ + decode_rows_,
                   std::max(cached_ + 1, static_cast<int>(tokens_.size())));
    // Rows past the original context wait for the others to run again.
    while (end > cached_ + 1 && MustRecompute(cached_, end)) --end;
  }
  span.recomputed = cached_ < recomputed_;
  if (span.recomputed) end = std::min(end, recomputed_);
  span.rows = end - cached_;
  span.rope_length = rope_length(end);
  return span;
}

void Sequence::AppendToken(int32_t id) {
  tokens_.push_back(id);
  RestartIfRopeChanges();
}

// Lets all rows run again if the next one changes the frequencies of all.
void Sequence::RestartIfRopeChanges() {
  if (in_prefill() || !has_next() || !MustRecompute(cached_, cached_ + 1)) {
    return;
  }
  recomputed_ = cached_;
  least_rope_length_ = rope_length(cached_ + 1);
  cached_ = 0;
  HookOps ops = MakeHookOps();
  disruptor_.Restart(ops);
  ops.Fetch();
  if (const int64_t floats = model().config().mamba_state_floats();
      floats > 0) {
    model().backend()->Zero(mamba_states_.as<void>(), 4 * floats);
  }
}

int Sequence::TowerRows() const {
  const bool own = vision_ != nullptr && !shares_vision_;
  return own && !vision_->done() ? vision_->rows() : 0;
}

absl::Span<const int32_t> Sequence::NextTokens() const {
  const RowSpan span = NextSpan();
  QK_CHECK(span.first_position + span.rows <= static_cast<int>(tokens_.size()));
  return absl::MakeConstSpan(tokens_).subspan(span.first_position, span.rows);
}

void Sequence::Advance(const RowSpan& span) {
  cached_ += span.rows;
  // The images' rows are needed again if the prompt is.
  if (!in_prefill() && !MustRecompute(prompt_tokens(), max_positions())) {
    vision_.reset();
  }
  RestartIfRopeChanges();
}

RopePosition Sequence::rope_position(int position) const {
  if (position < static_cast<int>(rope_positions_.size())) {
    return rope_positions_[position];
  }
  const int p = position + decode_shift_;
  return {p, p, p};
}

HookedTensor Sequence::Hook(HookPoint point, const RowSpan& span,
                            const HeadRows& x, const HeadRows& kept) {
  ++fired_[static_cast<size_t>(point)];
  return {point, span, x, &capture_, &disruptor_, kept};
}

HookedTensor Sequence::HookVision(int image, HookPoint point,
                                  const HeadRows& x) {
  RowSpan span;
  span.rows = x.rows;
  span.image = image;
  return {point,
          span,
          x,
          &capture_,
          vision_disruptors_.empty() ? nullptr : &vision_disruptors_[image],
          {}};
}

int64_t Sequence::HookPattern(int layer, const RowSpan& span) {
  ++fired_[static_cast<size_t>(HookPoint::kPattern)];
  return capture_.PatternBytes(layer, span);
}

SequenceRows Sequence::rows(int row_begin, const RowSpan& span) const {
  return {row_begin, span.rows, span.first_position, page_list_,
          mamba_states_.as<float>()};
}

FreshPages Sequence::fresh_pages(int layer, int heads) const {
  const int64_t half = int64_t{heads} *
                       model().config().layers[layer].attention.head_dim *
                       kPageSize * BytesOf(model().compute());
  FreshPages pages;
  pages.k = k_copy();
  pages.v = v_copy();
  pages.part = {0, half, heads};
  pages.base = fresh_.as<void>();
  pages.stride = 2 * half;
  return pages;
}

void Sequence::Deliver() {
  for (Disruptor& image : vision_disruptors_) {
    for (AppliedRule& applied : image.TakeReports()) {
      sink_->OnApplied(std::move(applied));
    }
  }
  for (AppliedRule& applied : disruptor_.TakeReports()) {
    sink_->OnApplied(std::move(applied));
  }
  for (LayerFrame& frame : capture_.TakeFrames()) {
    sink_->OnLayer(std::move(frame));
  }
}

absl::Status Sequence::FinishDecode() {
  HookOps ops = MakeHookOps();
  const bool reports = disruptor_.ReportDecode(ops);
  const bool frames = capture_.FinishDecode(ops);
  if (!reports && !frames) return absl::OkStatus();
  ops.Fetch();
  QK_RETURN_IF_ERROR(model().backend()->Synchronize());
  Deliver();
  return absl::OkStatus();
}

}  // namespace qk
