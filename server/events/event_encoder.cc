#include "server/events/event_encoder.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "engine/base/crc32c.h"
#include "server/common/limits.h"
#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

// Most bytes that protobuf needs for an id or a position.
constexpr int64_t kVarint = 5;

double Milliseconds(double seconds) { return seconds * 1e3; }

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
  first_event_ = absl::Now();
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
  const double count = std::max<double>(1, comparison.kl.size());
  out->set_mean_kl(static_cast<float>(kl / count));
  out->set_mean_logprob(
      static_cast<float>(logprob / std::max<double>(1, count - 1)));
  out->set_top1_flips(static_cast<int>(std::count(
      comparison.top1_flip.begin(), comparison.top1_flip.end(), true)));
}

void EventEncoder::Take(ArmLogits logits) {
  size_t i = 0;
  do {
    pb::Logits* out = Append()->mutable_logits();
    out->set_arm(ArmName(logits.arm));
    int64_t bytes = 0;
    for (; i < logits.logits.size() && bytes < kMaxEventBytes; ++i) {
      bytes += kVarint + (kVarint + 4) * logits.logits[i].ids.size();
      *out->add_positions() = PositionToProto(logits.logits[i]);
    }
  } while (i < logits.logits.size());
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
  if (!end_.has_value() || done_) return false;
  done_ = true;
  event->Clear();
  event->set_seq(seq_);
  FillFinished(*end_, event->mutable_finished());
  return true;
}

void EventEncoder::FillFinished(const RunEnd& end, pb::Finished* finished) {
  finished->set_events(seq_);
  finished->set_streamed_bytes(streamed_bytes_);
  finished->set_prompt_tokens(options_.manifest.token_ids_size());
  for (size_t i = 0; i < end.arms.size(); ++i) {
    pb::ArmSummary* arm = finished->add_arms();
    arm->set_arm(ArmName(static_cast<int>(i)));
    arm->set_generated_tokens(end.arms[i].generated_tokens);
    arm->set_generated_text(end.arms[i].text);
    arm->set_stop_reason(end.arms[i].stop_reason);
  }
  pb::Times* times = finished->mutable_times();
  times->set_queue_ms(Milliseconds(options_.queue_seconds()));
  times->set_prefill_ms(Milliseconds(end.times.prefill));
  times->set_decode_ms(Milliseconds(end.times.decode));
  times->set_capture_ms(Milliseconds(end.times.capture));
  times->set_compare_ms(Milliseconds(end.times.compare));
  times->set_stream_ms(absl::ToDoubleMilliseconds(absl::Now() - first_event_));
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
