#include "engine/hooks/capture.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"

namespace qk {
namespace {

int BytesOf(RawDtype dtype) { return dtype == RawDtype::kF32 ? 4 : 2; }

bool IsQueryPoint(HookPoint point) {
  return point == HookPoint::kQ || point == HookPoint::kRotQ ||
         point == HookPoint::kZ || point == HookPoint::kPattern;
}

bool HasRope(HookPoint point) {
  return point == HookPoint::kQ || point == HookPoint::kK ||
         point == HookPoint::kRotQ || point == HookPoint::kRotK;
}

// How many query heads read each head of a frame.
int GroupOf(const AttentionConfig& attention, HookPoint point, bool by_query) {
  return IsQueryPoint(point) || by_query ? 1 : attention.group_size();
}

std::vector<int> HeadsOfGroups(const std::vector<int>& query_heads, int group) {
  std::vector<int> heads;
  for (int head : query_heads) {
    if (heads.empty() || heads.back() != head / group) {
      heads.push_back(head / group);
    }
  }
  return heads;
}

int64_t NumValues(absl::Span<const int> shape) {
  int64_t n = 1;
  for (int dim : shape) n *= dim;
  return n;
}

}  // namespace

Capture::Capture(const ModelConfig& config, const RunSpec& spec, int arm)
    : config_(config),
      spec_(spec),
      arm_(arm),
      layer_index_(config.num_layers(), -1) {
  if (spec.capture.off) return;
  for (size_t i = 0; i < spec.capture.layers.size(); ++i) {
    layer_index_[spec.capture.layers[i]] = static_cast<int>(i);
  }
  const int64_t tokens = static_cast<int64_t>(spec.tokens.size());
  const int64_t rows =
      spec.capture.positions.empty()
          ? tokens
          : static_cast<int64_t>(spec.capture.positions.size());
  const int64_t last =
      tokens + (spec.generate.has_value() ? spec.generate->max_new_tokens : 0);
  const bool pattern =
      absl::c_linear_search(spec.capture.points, HookPoint::kPattern);
  lists_ = spec.capture.positions;
  for (int layer : spec.capture.layers) {
    const AttentionConfig& a = config.layers[layer].attention;
    const int group = a.group_size();
    AddHeadList({a.num_heads, 1, 1});
    AddHeadList({a.num_kv_heads, group, 1});
    AddHeadList({a.num_kv_heads, group, group});
    MakeRoom(a, rows);
    if (pattern) {
      staging_bytes_ = std::max(
          staging_bytes_, HookOps::BytesFor(rows * a.num_heads * last * 4));
    }
  }
  if (spec.capture.vision_layers.empty()) return;
  for (const Image& image : spec.images) {
    MakeRoom(config.vision.attention, image.patches());
  }
}

// Makes the buffers large enough for `rows` rows of a layer's Q, K, V and Z.
void Capture::MakeRoom(const AttentionConfig& attention, int64_t rows) {
  widest_ = std::max<int64_t>(widest_, attention.q_size());
  int64_t bytes = int64_t{4} * attention.q_size();
  if (spec_.capture.form == CaptureForm::kNormPerToken) {
    bytes = 4 * rows * attention.num_heads;
  } else if (spec_.capture.form == CaptureForm::kRaw) {
    bytes = rows * attention.q_size() * BytesOf(spec_.capture.raw_dtype);
  }
  staging_bytes_ =
      std::max(staging_bytes_, HookOps::BytesFor(bytes, 8 * widest_));
}

int64_t Capture::bytes() const {
  if (spec_.capture.off) return 0;
  int64_t bytes = 4 * static_cast<int64_t>(lists_.size());
  if (Has(spec_.capture.phase, Phase::kDecode) &&
      spec_.capture.form == CaptureForm::kNormOverTokens) {
    bytes += 8 * widest_ * static_cast<int64_t>(spec_.capture.layers.size()) *
             kNumHookPoints * 2;
  }
  return bytes;
}

absl::Status Capture::Reserve(Backend* backend) {
  backend_ = backend;
  if (spec_.capture.off) return absl::OkStatus();
  const int64_t lists = 4 * static_cast<int64_t>(lists_.size());
  QK_ASSIGN_OR_RETURN(device_lists_, backend->Allocate(lists));
  backend->Upload(device_lists_.as<void>(), lists_.data(), lists);
  const int64_t decode = bytes() - lists;
  if (decode > 0) {
    QK_ASSIGN_OR_RETURN(decode_, backend->Allocate(decode));
    backend->Zero(decode_.as<void>(), decode);
    decode_views_.assign(decode / (8 * widest_), {});
  }
  return absl::OkStatus();
}

int64_t Capture::NumHeads(const CaptureSpec& spec,
                          const AttentionConfig& attention, HookPoint point,
                          bool by_query) {
  const int group = GroupOf(attention, point, by_query);
  if (spec.heads.empty()) return attention.num_heads / group;
  return static_cast<int64_t>(HeadsOfGroups(spec.heads, group).size());
}

Capture::HeadView Capture::ViewOf(HookPoint point, int layer,
                                  const RowSpan& span, int physical,
                                  bool by_query) const {
  const AttentionConfig& attention = config_.attention(span.image >= 0, layer);
  const int group = GroupOf(attention, point, by_query);
  const int heads = attention.num_heads / group;
  QK_CHECK(physical % heads == 0);
  return {heads, group, physical / heads};
}

// Lists the places of the wanted heads, unless they are the tensor's own heads
// from 0 on.
void Capture::AddHeadList(const HeadView& view) {
  const bool all = spec_.capture.heads.empty();
  if ((all && view.copies == 1) || head_lists_.contains(view)) return;
  std::vector<int> heads = HeadsOfGroups(spec_.capture.heads, view.group);
  if (all) {
    heads.resize(view.heads);
    std::iota(heads.begin(), heads.end(), 0);
  }
  const int begin = static_cast<int>(lists_.size());
  for (int head : heads) lists_.push_back(head * view.copies);
  head_lists_[view] = {begin, static_cast<int>(lists_.size())};
}

Capture::ChosenHeads Capture::HeadsFor(const HeadView& view,
                                       const RowSpan& span) const {
  ChosenHeads chosen;
  const auto list = head_lists_.find(view);
  if (span.image >= 0 || list == head_lists_.end()) {
    chosen.ids.resize(view.heads);
    std::iota(chosen.ids.begin(), chosen.ids.end(), 0);
    chosen.set = {view.heads};
    return chosen;
  }
  const Range at = list->second;
  for (int i = at.begin; i < at.end; ++i) {
    chosen.ids.push_back(lists_[i] / view.copies);
  }
  chosen.set = {at.size(), device_lists_.as<int32_t>() + at.begin};
  return chosen;
}

bool Capture::Wants(HookPoint point, int layer, const RowSpan& span) const {
  return Wants(point, layer, Stage::kBefore, span) ||
         Wants(point, layer, Stage::kAfter, span);
}

bool Capture::Wants(HookPoint point, int layer, Stage stage,
                    const RowSpan& span) const {
  const CaptureSpec& c = spec_.capture;
  if (c.off || span.recomputed || !Has(c.stage, stage) ||
      !Has(c.phase, span.phase) || !absl::c_linear_search(c.points, point)) {
    return false;
  }
  return span.image >= 0 ? absl::c_binary_search(c.vision_layers, layer)
                         : layer_index_[layer] >= 0;
}

RowSet Capture::RowsOf(const RowSpan& span) const {
  const std::vector<int>& positions = spec_.capture.positions;
  if (span.phase == Phase::kDecode || span.image >= 0 || positions.empty()) {
    return {0, span.rows};
  }
  return {-span.first_position, static_cast<int>(positions.size()),
          device_lists_.as<int32_t>()};
}

void Capture::AddFrame(HookPoint point, int layer, Stage stage,
                       const RowSpan& span, std::vector<int> shape,
                       RawDtype dtype, std::vector<int> heads, int group) {
  Pending& pending = pending_.emplace_back();
  pending.rope_length = span.rope_length;
  LayerFrame& frame = pending.frame;
  frame.heads = std::move(heads);
  frame.group_size = group;
  frame.no_rope =
      (point == HookPoint::kRotQ || point == HookPoint::kRotK) &&
      config_.attention(span.image >= 0, layer).rope.frequencies.empty();
  frame.arm = arm_;
  frame.layer = layer;
  frame.point = point;
  frame.stage = stage;
  frame.phase = span.phase;
  frame.step = span.step;
  frame.position = span.phase == Phase::kDecode ? span.first_position : -1;
  frame.image = span.image;
  frame.form = spec_.capture.form;
  frame.dtype = dtype;
  frame.shape = std::move(shape);
}

HookOps::Room Capture::RoomForFrame(HookOps& ops, int64_t scratch_bytes) {
  Pending& newest = pending_.back();
  const LayerFrame& frame = newest.frame;
  const HookOps::Room room =
      ops.Take(NumValues(frame.shape) * BytesOf(frame.dtype), scratch_bytes);
  newest.data = room.staged;
  return room;
}

double* Capture::DecodeSum(HookPoint point, int layer, Stage stage,
                           const HeadView& view) {
  const size_t index =
      (static_cast<size_t>(layer_index_[layer]) * kNumHookPoints +
       static_cast<size_t>(point)) *
          2 +
      (stage == Stage::kAfter ? 1 : 0);
  decode_views_[index] = view;
  return decode_.as<double>() + index * widest_;
}

int64_t Capture::Record(HookPoint point, int layer, Stage stage,
                        const RowSpan& span, const HeadRows& x, bool by_query,
                        HookOps& ops) {
  if (!Wants(point, layer, stage, span)) return 0;
  const RowSet rows = RowsOf(span);
  const int64_t width = int64_t{x.heads} * x.head_dim;
  const HeadView view = ViewOf(point, layer, span, x.heads, by_query);
  const CaptureForm form = spec_.capture.form;
  if (form == CaptureForm::kNormOverTokens && span.phase == Phase::kDecode) {
    decode_rope_length_ = span.rope_length;
    double* sum = DecodeSum(point, layer, stage, view);
    ops.Add(MomentsJob{x, rows, {sum, nullptr}});
    return rows.count * width;
  }
  ChosenHeads heads = HeadsFor(view, span);
  const auto add_frame = [&](std::vector<int> shape, RawDtype dtype) {
    AddFrame(point, layer, stage, span, std::move(shape), dtype,
             std::move(heads.ids), view.group);
  };
  if (form == CaptureForm::kNormOverTokens) {
    add_frame({heads.set.count, x.head_dim}, RawDtype::kF32);
    const HookOps::Room room = RoomForFrame(ops, 8 * width);
    auto* squares = static_cast<double*>(room.scratch);
    ops.Add(MomentsJob{x, rows, {squares, nullptr}, /*from_zero=*/true});
    ops.Add(NormsJob{squares, heads.set, x.head_dim,
                     static_cast<float*>(room.result)});
  } else if (form == CaptureForm::kNormPerToken) {
    add_frame({rows.count, heads.set.count}, RawDtype::kF32);
    ops.Add(TokenNormsJob{x, rows, heads.set,
                          static_cast<float*>(RoomForFrame(ops).result)});
  } else {
    const RawDtype dtype = spec_.capture.raw_dtype;
    add_frame({rows.count, heads.set.count, x.head_dim}, dtype);
    ops.Add(CopyOutJob{x, rows, heads.set, dtype, RoomForFrame(ops).result});
  }
  return rows.count * width;
}

int64_t Capture::PatternBytes(int layer, const RowSpan& span) const {
  if (!Wants(HookPoint::kPattern, layer, Stage::kBefore, span) &&
      !Wants(HookPoint::kPattern, layer, Stage::kAfter, span)) {
    return 0;
  }
  const int64_t rows = RowsOf(span).count;
  return HookOps::BytesFor(4 * rows * PatternHeads(layer, span).set.count *
                           (span.first_position + span.rows));
}

Capture::ChosenHeads Capture::PatternHeads(int layer,
                                           const RowSpan& span) const {
  return HeadsFor({config_.layers[layer].attention.num_heads, 1, 1}, span);
}

PatternJob Capture::RecordPattern(int layer, const RowSpan& span,
                                  HookOps& ops) {
  PatternJob job;
  job.rows = RowsOf(span);
  job.keys = span.first_position + span.rows;
  ChosenHeads heads = PatternHeads(layer, span);
  job.heads = heads.set;
  // No rule acts on the pattern, so it has one stage.
  AddFrame(HookPoint::kPattern, layer, Stage::kBefore, span,
           {job.rows.count, heads.set.count, job.keys}, RawDtype::kF32,
           std::move(heads.ids), 1);
  job.to = static_cast<float*>(RoomForFrame(ops).result);
  return job;
}

bool Capture::FinishDecode(HookOps& ops) {
  bool any = false;
  for (size_t i = 0; i < decode_views_.size(); ++i) {
    const HeadView& view = decode_views_[i];
    if (view.heads == 0) continue;
    any = true;
    const HookPoint point = static_cast<HookPoint>(i / 2 % kNumHookPoints);
    const int layer = spec_.capture.layers[i / 2 / kNumHookPoints];
    const int head_dim = config_.layers[layer].attention.head_dim;
    RowSpan all;
    all.phase = Phase::kDecode;
    all.rope_length = decode_rope_length_;
    ChosenHeads heads = HeadsFor(view, all);
    AddFrame(point, layer, i % 2 == 1 ? Stage::kAfter : Stage::kBefore, all,
             {heads.set.count, head_dim}, RawDtype::kF32, std::move(heads.ids),
             view.group);
    pending_.back().frame.position = -1;
    ops.Add(NormsJob{decode_.as<double>() + i * widest_, heads.set, head_dim,
                     static_cast<float*>(RoomForFrame(ops).result)});
  }
  return any;
}

std::vector<LayerFrame> Capture::TakeFrames() {
  std::vector<LayerFrame> done;
  for (; !pending_.empty() && pending_.front().data.here();
       pending_.pop_front()) {
    LayerFrame& frame = pending_.front().frame;
    const absl::Span<const uint8_t> data = pending_.front().data.bytes();
    frame.data.assign(data.begin(), data.end());
    if (frame.form == CaptureForm::kNormOverTokens) {
      StatisticsInputs& inputs = frame.statistics_inputs.emplace();
      inputs.lambda = spec_.statistics.lambda;
      inputs.top_n = spec_.statistics.top_n;
      // The vision tower's RoPE counts rows and columns of patches, so it has
      // no wavelengths in tokens.
      if (HasRope(frame.point) && frame.image < 0) {
        inputs.wavelengths =
            config_.layers[frame.layer].attention.rope.Wavelengths(
                pending_.front().rope_length);
      }
    }
    done.push_back(std::move(frame));
  }
  return done;
}

}  // namespace qk
