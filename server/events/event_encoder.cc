#include "server/events/event_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/base/crc32c.h"
#include "engine/base/monotonic.h"
#include "server/common/limits.h"
#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

// Most bytes that protobuf needs for an id or a position.
constexpr int64_t kVarint = 5;

double Milliseconds(double seconds) { return seconds * 1e3; }

// Counts the values of type Bits whose exponent, given by its mask, is all
// ones.
template <typename Bits>
int64_t CountExponent(const std::string& data, Bits exponent) {
  int64_t count = 0;
  for (size_t i = 0; i + sizeof(Bits) <= data.size(); i += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, data.data() + i, sizeof(Bits));
    count += (bits & exponent) == exponent;
  }
  return count;
}

// The number of the frame's values, as they are sent, that are NaN or infinite.
int64_t CountNonFinite(const LayerFrame& frame) {
  switch (frame.dtype) {
    case RawDtype::kF32:
      return CountExponent<uint32_t>(frame.data, 0x7f800000u);
    case RawDtype::kF16:
      return CountExponent<uint16_t>(frame.data, 0x7c00u);
    case RawDtype::kBF16:
      return CountExponent<uint16_t>(frame.data, 0x7f80u);
  }
  return 0;
}

pb::AppliedDims DimsToProto(const AppliedDims& dims) {
  pb::AppliedDims out;
  out.set_index(dims.index);
  out.mutable_dims()->Assign(dims.dims.begin(), dims.dims.end());
  out.mutable_values()->Assign(dims.values.begin(), dims.values.end());
  return out;
}

pb::PositionLogits PositionToProto(const PositionLogits& position) {
  pb::PositionLogits out;
  out.set_position(position.position);
  out.mutable_ids()->Assign(position.ids.begin(), position.ids.end());
  out.mutable_logprobs()->Assign(position.logprobs.begin(),
                                 position.logprobs.end());
  return out;
}

}  // namespace

EventEncoder::EventEncoder(Options options) : options_(std::move(options)) {}

double EventEncoder::stream_seconds() const {
  if (!started_) return 0;
  return absl::ToDoubleSeconds(std::min(last_event_, MonotonicNow()) -
                               first_event_);
}

const std::string& EventEncoder::ArmName(int arm) const {
  return options_.manifest.expanded().arms(arm).name();
}

void EventEncoder::Feed(StreamItem item) {
  std::visit(
      [this](auto&& value) { Take(std::forward<decltype(value)>(value)); },
      std::move(item));
}

// Appends an event with a sequence number, which every event but Accepted has.
pb::AnalyzeEvent* EventEncoder::Append() {
  Start();
  pb::AnalyzeEvent* event = &ready_.emplace_back();
  event->set_seq(seq_++);
  return event;
}

// Queues Started before the first result.
void EventEncoder::Start() {
  if (started_) return;
  started_ = true;
  first_event_ = MonotonicNow();
  pb::AnalyzeEvent* event = &ready_.emplace_back();
  event->set_seq(seq_++);
  pb::Started* started = event->mutable_started();
  *started->mutable_token_ids() = options_.manifest.token_ids();
  *started->mutable_expanded() = options_.manifest.expanded();
  *started->mutable_estimate() = options_.estimate;
}

void EventEncoder::Take(QueuePosition position) {
  if (started_) return;
  pb::Accepted* accepted = ready_.emplace_back().mutable_accepted();
  accepted->set_request_id(options_.request_id);
  accepted->set_queue_position(position.position);
}

void EventEncoder::Take(LayerFrame frame) {
  Start();
  header_ = LayerToProto(frame, options_.manifest.expanded());
  non_finite_[frame.arm].captured += CountNonFinite(frame);
  frame_ = std::move(frame);
  offset_ = 0;
  UpdateDigest();
}

void EventEncoder::UpdateDigest() {
  const LayerFrame& frame = *frame_;
  const DigestKey key = {
      frame.arm,   frame.image,     static_cast<int>(frame.phase),
      frame.layer, header_.point(), static_cast<int>(frame.stage)};
  const auto [it, inserted] = digests_.try_emplace(key);
  Digest& digest = it->second;
  const pb::Capture& capture = options_.manifest.expanded().capture();
  if (inserted && (frame.form != CaptureForm::kRaw || capture.raw_sha256())) {
    digest.sha256.emplace();
  }
  if (digest.sha256.has_value()) {
    digest.sha256->Update(frame.data.data(), frame.data.size());
  }
  digest.crc32c =
      ExtendCrc32c(digest.crc32c, frame.data.data(), frame.data.size());
  digest.bytes += static_cast<int64_t>(frame.data.size());
}

void EventEncoder::Take(AppliedRule applied) {
  // Only the first event carries `replaced`, however many the dims need.
  int64_t replaced = applied.replaced;
  size_t i = 0;
  do {
    pb::Applied* out = Append()->mutable_applied();
    out->set_arm(ArmName(applied.arm));
    out->set_rule(applied.rule);
    out->set_layer(applied.layer);
    out->set_tensor(
        static_cast<pb::QkvTensor>(EnumNumber(applied.tensor, kQkvTable)));
    out->set_phase(static_cast<pb::Phase>(applied.phase));
    if (applied.step >= 0) out->set_step(applied.step);
    if (applied.image >= 0) out->set_image(applied.image);
    out->set_replaced(std::exchange(replaced, 0));
    int64_t bytes = 0;
    for (; i < applied.chosen.size() && bytes < kMaxEventBytes; ++i) {
      const AppliedDims& dims = applied.chosen[i];
      bytes += kVarint * (2 + dims.dims.size()) + 4 * dims.values.size();
      *out->add_chosen() = DimsToProto(dims);
    }
  } while (i < applied.chosen.size());
}

void EventEncoder::Take(TokenEvent token) {
  ++generated_tokens_;
  pb::Token* out = Append()->mutable_token();
  out->set_arm(ArmName(token.arm));
  out->set_step(token.step);
  out->set_id(token.id);
  out->set_text(std::move(token.text));
  out->set_logprob(token.logprob);
}

void EventEncoder::Take(ComparisonResult comparison) {
  pb::Comparison* out = Append()->mutable_comparison();
  out->set_arm(ArmName(comparison.arm));
  out->set_baseline(options_.manifest.expanded().compare().baseline());
  out->mutable_kl()->Assign(comparison.kl.begin(), comparison.kl.end());
  out->mutable_top1_flip()->Assign(comparison.top1_flip.begin(),
                                   comparison.top1_flip.end());
  out->mutable_token_logprob()->Assign(comparison.token_logprob.begin(),
                                       comparison.token_logprob.end());
  out->mutable_top1_id()->Assign(comparison.top1.begin(),
                                 comparison.top1.end());
  double kl = 0, logprob = 0;
  for (float value : comparison.kl) kl += value;
  for (float value : comparison.token_logprob) logprob += value;
  NonFinite& non_finite = non_finite_[comparison.arm];
  non_finite.kl = std::count_if(comparison.kl.begin(), comparison.kl.end(),
                                [](float kl) { return !std::isfinite(kl); });
  out->set_non_finite(static_cast<int>(non_finite.kl));
  for (size_t t = 0; t < comparison.top1.size(); ++t) {
    if (comparison.top1[t] < 0) non_finite.logits.insert(static_cast<int>(t));
  }
  const double count = std::max<double>(1, comparison.kl.size());
  out->set_mean_kl(static_cast<float>(kl / count));
  out->set_mean_logprob(
      static_cast<float>(logprob / std::max<double>(1, count - 1)));
  out->set_top1_flips(static_cast<int>(std::count(
      comparison.top1_flip.begin(), comparison.top1_flip.end(), true)));
}

void EventEncoder::Take(ArmLogits logits) {
  for (const PositionLogits& position : logits.logits) {
    if (std::any_of(position.logprobs.begin(), position.logprobs.end(),
                    [](float logprob) { return !std::isfinite(logprob); })) {
      non_finite_[logits.arm].logits.insert(position.position);
    }
  }
  Start();
  logits_ = std::move(logits);
  next_position_ = 0;
}

// They may be large, so they become events one after another.
void EventEncoder::NextLogits(pb::AnalyzeEvent* event) {
  event->Clear();
  event->set_seq(seq_++);
  pb::Logits* out = event->mutable_logits();
  out->set_arm(ArmName(logits_->arm));
  std::vector<PositionLogits>& positions = logits_->logits;
  int64_t bytes = 0;
  for (; next_position_ < positions.size() && bytes < kMaxEventBytes;
       ++next_position_) {
    const PositionLogits position = std::move(positions[next_position_]);
    bytes += kVarint + (kVarint + 4) * position.ids.size();
    *out->add_positions() = PositionToProto(position);
  }
  if (next_position_ == positions.size()) logits_.reset();
}

// Analyze and Generate request no scores.
void EventEncoder::Take(const ScoreResult&) {}

void EventEncoder::Take(RunEnd end) {
  Start();
  end_ = std::move(end);
}

void EventEncoder::NextChunk(pb::AnalyzeEvent* event) {
  event->Clear();
  event->set_seq(seq_++);
  pb::Layer* layer = event->mutable_layer();
  *layer = header_;
  const std::string& data = frame_->data;
  const size_t size = std::min<size_t>(data.size() - offset_, kMaxChunkBytes);
  layer->set_data(data.data() + offset_, size);
  layer->set_offset(static_cast<int64_t>(offset_));
  layer->set_crc32c(Crc32c(data.data() + offset_, size));
  offset_ += size;
  streamed_bytes_ += static_cast<int64_t>(size);
  if (offset_ == data.size()) frame_.reset();
}

bool EventEncoder::Next(pb::AnalyzeEvent* event) {
  if (!ready_.empty()) {
    *event = std::move(ready_.front());
    ready_.pop_front();
    return true;
  }
  if (frame_.has_value()) {
    NextChunk(event);
    return true;
  }
  if (logits_.has_value()) {
    NextLogits(event);
    return true;
  }
  if (!end_.has_value() || done_) return false;
  done_ = true;
  event->Clear();
  event->set_seq(seq_);
  FillFinished(*end_, event->mutable_finished());
  return true;
}

void EventEncoder::FillArm(int index, const ArmSummary& arm,
                           pb::ArmSummary* out) {
  out->set_arm(ArmName(index));
  out->set_generated_tokens(arm.generated_tokens);
  out->set_generated_text(arm.text);
  out->set_stop_reason(arm.stop_reason);
  NonFinite& non_finite = non_finite_[index];
  if (arm.stop_reason == "non_finite") {
    non_finite.logits.insert(options_.manifest.token_ids_size() - 1 +
                             arm.generated_tokens);
  }
  pb::NonFinite* counts = out->mutable_non_finite();
  counts->set_captured(non_finite.captured);
  counts->set_logits(static_cast<int64_t>(non_finite.logits.size()));
  counts->set_kl(non_finite.kl);
}

void EventEncoder::FillFinished(const RunEnd& end, pb::Finished* finished) {
  finished->set_events(seq_);
  finished->set_streamed_bytes(streamed_bytes_);
  finished->set_prompt_tokens(options_.manifest.token_ids_size());
  for (size_t i = 0; i < end.arms.size(); ++i) {
    FillArm(static_cast<int>(i), end.arms[i], finished->add_arms());
  }
  pb::Times* times = finished->mutable_times();
  times->set_queue_ms(Milliseconds(options_.queue_seconds()));
  times->set_prefill_ms(Milliseconds(end.times.prefill));
  times->set_decode_ms(Milliseconds(end.times.decode));
  times->set_capture_ms(Milliseconds(end.times.capture));
  times->set_compare_ms(Milliseconds(end.times.compare));
  last_event_ = MonotonicNow();
  times->set_stream_ms(Milliseconds(stream_seconds()));
  pb::Manifest* manifest = finished->mutable_manifest();
  *manifest = std::move(options_.manifest);
  for (auto& [key, digest] : digests_) {
    pb::PayloadDigest* out = manifest->add_digests();
    out->set_arm(manifest->expanded().arms(key.arm).name());
    if (key.image >= 0) out->set_image(key.image);
    out->set_phase(static_cast<pb::Phase>(key.phase));
    out->set_layer(key.layer);
    out->set_point(static_cast<pb::HookPoint>(key.point));
    out->set_stage(static_cast<pb::Stage>(key.stage));
    if (digest.sha256.has_value()) out->set_sha256(digest.sha256->FinishHex());
    out->set_crc32c(digest.crc32c);
    out->set_bytes(digest.bytes);
  }
}

}  // namespace qk
