#include "server/events/event_encoder.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "engine/base/crc32c.h"
#include "gtest/gtest.h"
#include "server/common/limits.h"

namespace qk {
namespace {

class EventEncoderTest : public ::testing::Test {
 protected:
  EventEncoderTest() {
    EventEncoder::Options options;
    options.request_id = "id";
    options.queue_seconds = [] { return 0.25; };
    pb::AnalyzeRequest* expanded = options.manifest.mutable_expanded();
    for (const char* name : {"clean", "top"}) {
      expanded->add_arms()->set_name(name);
    }
    expanded->mutable_capture()->set_form(pb::RAW);
    for (int id : {5, 6, 7}) options.manifest.add_token_ids(id);
    encoder_.emplace(options);
  }

  std::vector<pb::AnalyzeEvent> Feed(StreamItem item) {
    encoder_->Feed(std::move(item));
    std::vector<pb::AnalyzeEvent> out;
    pb::AnalyzeEvent event;
    while (encoder_->Next(&event)) out.push_back(event);
    return out;
  }

  static LayerFrame Raw(size_t bytes, int step) {
    LayerFrame frame;
    frame.form = CaptureForm::kRaw;
    frame.phase = Phase::kDecode;
    frame.step = step;
    frame.position = 3 + step;
    frame.data.resize(bytes);
    for (size_t i = 0; i < bytes; ++i) {
      frame.data[i] = static_cast<char>(i * 31 + step);
    }
    return frame;
  }

  std::optional<EventEncoder> encoder_;
};

TEST_F(EventEncoderTest, PositionsComeBeforeStartedOnly) {
  const auto first = Feed(QueuePosition{4});
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].accepted().request_id(), "id");
  EXPECT_EQ(first[0].accepted().queue_position(), 4);
  const auto token = Feed(TokenEvent{1, 0, 9, "t", -1});
  ASSERT_EQ(token.size(), 2u);
  EXPECT_EQ(token[0].seq(), 0);
  EXPECT_EQ(token[0].started().token_ids_size(), 3);
  EXPECT_EQ(token[1].seq(), 1);
  EXPECT_EQ(token[1].token().arm(), "top");
  EXPECT_TRUE(Feed(QueuePosition{0}).empty());
}

TEST_F(EventEncoderTest, LargePayloadsComeInChunks) {
  const size_t total = 2 * kMaxChunkBytes + 100;
  const LayerFrame frame = Raw(total, 0);
  auto events = Feed(frame);
  events.erase(events.begin());  // Started
  ASSERT_EQ(events.size(), 3u);
  std::string data;
  for (const auto& event : events) {
    const pb::Layer& layer = event.layer();
    EXPECT_EQ(layer.offset(), static_cast<int64_t>(data.size()));
    EXPECT_EQ(layer.total_bytes(), static_cast<int64_t>(total));
    EXPECT_LE(layer.data().size(), static_cast<size_t>(kMaxChunkBytes));
    EXPECT_EQ(layer.crc32c(), Crc32c(layer.data().data(), layer.data().size()));
    EXPECT_EQ(layer.step(), 0);
    data += layer.data();
  }
  EXPECT_EQ(data, frame.data);
  EXPECT_EQ(encoder_->streamed_bytes(), static_cast<int64_t>(total));
}

TEST_F(EventEncoderTest, AnEmptyPayloadIsStillAnEvent) {
  const auto events = Feed(Raw(0, 0));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].layer().total_bytes(), 0);
}

TEST_F(EventEncoderTest, ADigestCoversAllSteps) {
  Feed(Raw(100, 0));
  Feed(Raw(50, 1));
  RunEnd end;
  end.arms.resize(2);
  end.arms[1].stop_reason = "length";
  const auto events = Feed(end);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(encoder_->done());
  const pb::Finished& finished = events[0].finished();
  EXPECT_EQ(finished.events(), events[0].seq());
  EXPECT_EQ(finished.events(), 3);
  EXPECT_EQ(finished.streamed_bytes(), 150);
  EXPECT_EQ(finished.arms(1).stop_reason(), "length");
  EXPECT_EQ(finished.times().queue_ms(), 250);
  ASSERT_EQ(finished.manifest().digests_size(), 1);
  const pb::PayloadDigest& digest = finished.manifest().digests(0);
  const std::string all = Raw(100, 0).data + Raw(50, 1).data;
  EXPECT_EQ(digest.bytes(), 150);
  EXPECT_EQ(digest.crc32c(), Crc32c(all.data(), all.size()));
  EXPECT_TRUE(digest.sha256().empty());  // raw, not asked for
}

TEST_F(EventEncoderTest, WideRulesTakeSeveralEvents) {
  AppliedRule applied;
  applied.arm = 1;
  applied.replaced = 77;
  for (int i = 0; i < 20000; ++i) {
    applied.chosen.push_back({i, std::vector<int>(22, i % 64), {1.0f}});
  }
  auto events = Feed(applied);
  events.erase(events.begin());
  EXPECT_GT(events.size(), 1u);
  int64_t replaced = 0;
  int next = 0;
  for (const auto& event : events) {
    EXPECT_LT(event.ByteSizeLong(), 2u << 20);
    replaced += event.applied().replaced();
    for (const auto& dims : event.applied().chosen()) {
      EXPECT_EQ(dims.index(), next++);
    }
  }
  EXPECT_EQ(next, 20000);
  EXPECT_EQ(replaced, 77);
}

TEST_F(EventEncoderTest, WideLogitsTakeSeveralEvents) {
  ArmLogits logits;
  for (int i = 0; i < 1000; ++i) {
    logits.logits.push_back(
        {i, std::vector<int32_t>(500, i), std::vector<float>(500, -1.0f)});
  }
  auto events = Feed(logits);
  events.erase(events.begin());
  EXPECT_GT(events.size(), 1u);
  int next = 0;
  for (const auto& event : events) {
    for (const auto& position : event.logits().positions()) {
      EXPECT_EQ(position.position(), next++);
    }
  }
  EXPECT_EQ(next, 1000);
}

TEST_F(EventEncoderTest, ComparisonMeans) {
  ComparisonResult comparison;
  comparison.arm = 1;
  comparison.kl = {1, 2, 3};
  comparison.top1 = {4, 5, 6};
  comparison.top1_flip = {true, false, true};
  comparison.token_logprob = {0, -2, -4};
  const auto events = Feed(comparison);
  const pb::Comparison& out = events[1].comparison();
  EXPECT_EQ(out.arm(), "top");
  EXPECT_FLOAT_EQ(out.mean_kl(), 2);
  EXPECT_EQ(out.top1_flips(), 2);
  EXPECT_FLOAT_EQ(out.mean_logprob(), -3);  // position 0 has none
}

// --- values that are not finite

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename Value>
LayerFrame FrameOf(RawDtype dtype, const std::vector<Value>& values) {
  LayerFrame frame;
  frame.arm = 1;
  frame.form = CaptureForm::kRaw;
  frame.dtype = dtype;
  frame.data.assign(reinterpret_cast<const char*>(values.data()),
                    values.size() * sizeof(Value));
  return frame;
}

pb::Finished End(const std::vector<pb::AnalyzeEvent>& events) {
  return events.back().finished();
}

TEST_F(EventEncoderTest, CapturedValuesAreCountedAsTheyAreSent) {
  Feed(FrameOf<float>(RawDtype::kF32, {1, kNan, -kInf, 3e38f, 0, kInf}));
  // 65,504, the infinities and a NaN; then zero and a subnormal.
  Feed(FrameOf<uint16_t>(RawDtype::kF16,
                         {0x7bff, 0x7c00, 0xfc00, 0x7e01, 0, 0x03ff}));
  // The largest number, -infinity, NaN, 1.
  Feed(FrameOf<uint16_t>(RawDtype::kBF16, {0x7f7f, 0xff80, 0x7fc0, 0x3f80}));
  const pb::Finished end = End(Feed(RunEnd{{}, {{}, {}}, {}}));
  ASSERT_EQ(end.arms_size(), 2);
  EXPECT_TRUE(end.arms(0).has_non_finite());
  EXPECT_EQ(end.arms(0).non_finite().captured(), 0);
  EXPECT_EQ(end.arms(1).non_finite().captured(), 3 + 3 + 2);
}

TEST_F(EventEncoderTest, APositionCountsOnceWhoeverAskedForItsLogits) {
  ComparisonResult comparison;
  comparison.arm = 1;
  comparison.kl = {0, kNan, kNan};
  comparison.top1 = {4, 5, -1};  // at 1 the baseline's logits are bad
  comparison.top1_flip = {true, false, false};
  comparison.token_logprob = {0, -2, -4};
  const auto events = Feed(comparison);
  EXPECT_EQ(events[1].comparison().non_finite(), 2);
  EXPECT_TRUE(std::isnan(events[1].comparison().mean_kl()));
  EXPECT_FLOAT_EQ(events[1].comparison().mean_logprob(), -3);
  ArmLogits logits;
  logits.arm = 1;
  logits.logits.push_back({0, {1, 2}, {-1, -2}});
  logits.logits.push_back({2, {1, 2}, {kNan, kNan}});
  Feed(logits);
  // The first generated token has the logits of position 2; two were made.
  RunEnd end;
  end.arms.resize(2);
  end.arms[1].generated_tokens = 2;
  end.arms[1].stop_reason = "non_finite";
  const pb::Finished finished = End(Feed(end));
  EXPECT_EQ(finished.arms(1).non_finite().logits(), 2);  // positions 2 and 4
  EXPECT_EQ(finished.arms(1).non_finite().kl(), 2);
  EXPECT_EQ(finished.arms(0).non_finite().logits(), 0);
}

}  // namespace
}  // namespace qk
