#include "client/cpp/stream_checker.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::HasSubstr;

using Events = std::vector<v1::AnalyzeEvent>;
using Kind = v1::AnalyzeEvent;

// Feeds all events; returns the tensors, or the first error.
absl::StatusOr<std::vector<Tensor>> Check(Events events,
                                          bool* finished = nullptr) {
  StreamChecker checker;
  std::vector<Tensor> tensors;
  for (v1::AnalyzeEvent& event : events) {
    absl::StatusOr<std::optional<Tensor>> tensor = checker.Add(&event);
    if (!tensor.ok()) return tensor.status();
    if (tensor->has_value()) tensors.push_back(std::move(**tensor));
  }
  if (finished != nullptr) *finished = checker.finished();
  return tensors;
}

TEST(StreamChecker, TakesAValidStream) {
  bool finished = false;
  const auto tensors = Check(FakeStream(), &finished);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(finished);
  ASSERT_EQ(tensors->size(), 2u * 2 * 3);
  EXPECT_EQ(TensorName((*tensors)[0].header), "clean/layer.0.hook_rot_q");
}

TEST(StreamChecker, TellsTheTowersTensorsFromTheTexts) {
  FakeStreamOptions options;
  options.images = 2;
  const auto tensors = Check(FakeStream(options));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u * (2 * 3 + 2 * 3));
  EXPECT_EQ(TensorName((*tensors)[1].header),
            "clean/image.1.vision.0.hook_rot_q");
  options.form = v1::RAW;
  EXPECT_THAT(TensorAxes((*Check(FakeStream(options)))[1].header),
              ::testing::ElementsAre("patch", "head", "dim"));
}

TEST(StreamChecker, NamesWhatIsWrongWithATowersTensor) {
  FakeStreamOptions options;
  options.images = 1;
  Events events = FakeStream(options);
  v1::Layer* layer = events[IndexOf(events, Kind::kLayer)].mutable_layer();
  layer->set_image(1);
  EXPECT_THAT(std::string(Check(events).status().message()),
              HasSubstr("clean/image.1.vision.0.hook_rot_q: the request has 1 "
                        "images"));
  events = FakeStream(options);
  auto* digests = events.back().mutable_finished()->mutable_manifest();
  for (v1::PayloadDigest& digest : *digests->mutable_digests()) {
    if (digest.has_image()) digest.set_crc32c(digest.crc32c() + 1);
  }
  EXPECT_THAT(std::string(Check(events).status().message()),
              HasSubstr("image 0, vision layer 0, HOOK_ROT_Q differs"));
  events = FakeStream(options);
  digests = events.back().mutable_finished()->mutable_manifest();
  for (v1::PayloadDigest& digest : *digests->mutable_digests()) {
    digest.clear_image();
  }
  EXPECT_FALSE(Check(events).ok());
}

TEST(StreamChecker, PutsChunksTogether) {
  const auto whole = Check(FakeStream());
  ASSERT_TRUE(whole.ok()) << whole.status();
  ASSERT_EQ(whole->size(), 12u);
  for (const size_t bytes : {1u, 5u, 31u, 32u}) {
    FakeStreamOptions options;
    options.chunk_bytes = bytes;
    const auto tensors = Check(FakeStream(options));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    ASSERT_EQ(tensors->size(), whole->size());
    for (size_t i = 0; i < whole->size(); ++i) {
      EXPECT_EQ((*tensors)[i].data, (*whole)[i].data);
      EXPECT_EQ((*tensors)[i].header.crc32c(), (*whole)[i].header.crc32c());
      EXPECT_TRUE((*tensors)[i].header.has_statistics());
    }
  }
}

TEST(StreamChecker, IsNotFinishedWithoutFinished) {
  Events events = FakeStream();
  events.pop_back();
  bool finished = true;
  ASSERT_TRUE(Check(events, &finished).ok());
  EXPECT_FALSE(finished);
}

struct BreakCase {
  const char* name;
  std::function<void(Events*)> break_it;
  const char* message;
};

v1::Layer* FirstLayer(Events* events) {
  return (*events)[IndexOf(*events, Kind::kLayer)].mutable_layer();
}

class BrokenStream : public ::testing::TestWithParam<BreakCase> {};

TEST_P(BrokenStream, IsRejected) {
  FakeStreamOptions options;
  options.chunk_bytes = 16;
  Events events = FakeStream(options);
  GetParam().break_it(&events);
  const auto tensors = Check(events);
  ASSERT_FALSE(tensors.ok());
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(tensors.status().message()),
              HasSubstr(GetParam().message));
}

const BreakCase kBreakCases[] = {
    {"AnEventIsMissing", [](Events* e) { e->erase(e->begin() + 4); },
     "is missing"},
    {"AnEventCameTwice", [](Events* e) { e->insert(e->begin() + 4, (*e)[4]); },
     "is missing"},
    {"LayerBeforeStarted",
     [](Events* e) {
       std::swap((*e)[1], (*e)[2]);
       (*e)[1].set_seq(0);
     },
     "before Started"},
    {"StartedTwice",
     [](Events* e) {
       e->insert(e->begin() + 2, (*e)[1]);
       (*e)[2].set_seq(1);
     },
     "second Started"},
    {"UnknownArm", [](Events* e) { FirstLayer(e)->set_arm("other"); },
     "not one of the request's"},
    {"WrongChecksum",
     [](Events* e) { FirstLayer(e)->mutable_data()->front() ^= 1; },
     "checksum"},
    {"WrongOffset", [](Events* e) { FirstLayer(e)->set_offset(16); },
     "chunk at byte 16, expected 0"},
    {"ShapeAndBytesDisagree",
     [](Events* e) { FirstLayer(e)->set_total_bytes(33); }, "its shape needs"},
    {"ShapeOverflows",
     [](Events* e) {
       for (int i = 0; i < 3; ++i) FirstLayer(e)->add_shape(2147483647);
     },
     "its shape needs -1"},
    {"NegativeShape", [](Events* e) { FirstLayer(e)->set_shape(0, -2); },
     "its shape needs -1"},
    {"ChunksDisagree",
     [](Events* e) {
       (*e)[IndexOf(*e, Kind::kLayer) + 1].mutable_layer()->add_heads(1);
     },
     "chunks have different fields"},
    {"AnEmptyChunk",
     [](Events* e) {
       FirstLayer(e)->clear_data();
       FirstLayer(e)->set_crc32c(0);
     },
     "empty chunk"},
    {"LayersDescend",
     [](Events* e) {
       for (v1::AnalyzeEvent& event : *e) {
         if (event.has_layer() && event.layer().arm() == "clean") {
           event.mutable_layer()->set_layer(1 - event.layer().layer());
         }
       }
     },
     "came after layer 1"},
    {"LayerAfterComparison",
     [](Events* e) {
       v1::AnalyzeEvent comparison = (*e)[IndexOf(*e, Kind::kComparison)];
       comparison.set_seq(1);
       (*e)[2] = comparison;
     },
     "after its arm's Comparison"},
    {"SameTensorTwice",
     [](Events* e) {
       for (v1::AnalyzeEvent& event : *e) {
         if (event.has_layer() && event.layer().point() == v1::HOOK_ROT_K) {
           event.mutable_layer()->set_point(v1::HOOK_ROT_Q);
         }
       }
     },
     "came twice"},
    {"FinishedCountsOtherEvents",
     [](Events* e) { e->back().mutable_finished()->set_events(3); },
     "Finished counts 3 events"},
    {"FinishedCountsOtherBytes",
     [](Events* e) { e->back().mutable_finished()->set_streamed_bytes(3); },
     "Finished counts 3 bytes"},
    {"ADigestDiffers",
     [](Events* e) {
       e->back()
           .mutable_finished()
           ->mutable_manifest()
           ->mutable_digests(0)
           ->set_crc32c(1);
     },
     "digest of arm 'clean', layer 0, HOOK_ROT_Q differs"},
    {"ASha256Differs",
     [](Events* e) {
       e->back()
           .mutable_finished()
           ->mutable_manifest()
           ->mutable_digests(0)
           ->set_sha256("00");
     },
     "SHA-256 of arm 'clean', layer 0, HOOK_ROT_Q differs"},
    {"ADigestIsMissing",
     [](Events* e) {
       e->back()
           .mutable_finished()
           ->mutable_manifest()
           ->mutable_digests()
           ->RemoveLast();
     },
     "no digest of arm 'top_k:1', layer 1, HOOK_V"},
    {"ADigestOfNothing",
     [](Events* e) {
       e->back()
           .mutable_finished()
           ->mutable_manifest()
           ->mutable_digests(0)
           ->set_layer(7);
     },
     "which never came"},
    {"AnEventAfterFinished", [](Events* e) { e->push_back(e->back()); },
     "after Finished"},
};

INSTANTIATE_TEST_SUITE_P(All, BrokenStream, ::testing::ValuesIn(kBreakCases),
                         [](const auto& info) { return info.param.name; });

// Makes the frames of a decode step and its token, by seq.
v1::AnalyzeEvent DecodeLayer(int64_t seq, int step) {
  v1::AnalyzeEvent event = FakeStream()[2];
  event.set_seq(seq);
  event.mutable_layer()->set_phase(v1::DECODE);
  event.mutable_layer()->set_step(step);
  return event;
}

v1::AnalyzeEvent TokenOf(int64_t seq, int step) {
  v1::AnalyzeEvent event;
  event.set_seq(seq);
  event.mutable_token()->set_arm("clean");
  event.mutable_token()->set_step(step);
  return event;
}

TEST(StreamChecker, WantsAStepsFramesBeforeItsToken) {
  const Events head = {FakeStream()[0], FakeStream()[1]};
  Events good = head;
  for (const auto& event : {TokenOf(1, 0), DecodeLayer(2, 0), TokenOf(3, 1),
                            DecodeLayer(4, 1), TokenOf(5, 2)}) {
    good.push_back(event);
  }
  EXPECT_TRUE(Check(good).ok()) << Check(good).status();
  Events late = head;
  for (const auto& event : {TokenOf(1, 0), TokenOf(2, 1), DecodeLayer(3, 0)}) {
    late.push_back(event);
  }
  EXPECT_THAT(std::string(Check(late).status().message()),
              HasSubstr("came after its step's token"));
  Events skipped = head;
  for (const auto& event : {TokenOf(1, 0), TokenOf(2, 2)}) {
    skipped.push_back(event);
  }
  EXPECT_THAT(std::string(Check(skipped).status().message()),
              HasSubstr("after step 0"));
}

}  // namespace
}  // namespace qk::client
