// Compares the vision tower's Q, K and V with transformers in float64.
#include <cmath>
#include <map>
#include <thread>
#include <tuple>

#include "engine/base/sha256.h"
#include "gmock/gmock.h"
#include "tests/server/convert/images_testing.h"

namespace qk::testing {
namespace {

constexpr double kBound = 1e-10;  // NMSE

pb::AnalyzeRequest WithTower(pb::AnalyzeRequest request, pb::CaptureForm form) {
  pb::Capture* capture = request.mutable_capture();
  for (pb::HookPoint point : kVisionPoints) capture->add_points(point);
  capture->set_form(form);
  capture->add_vision_layers(0);
  capture->add_vision_layers(1);
  return request;
}

std::vector<const pb::Layer*> TowerFrames(const Analysis& out) {
  std::vector<const pb::Layer*> frames;
  for (const pb::Layer* layer : out.layers()) {
    if (layer->has_image()) frames.push_back(layer);
  }
  return frames;
}

// Converts (patches, heads, dims) into the form.
std::vector<float> InForm(const std::vector<float>& rows,
                          pb::CaptureForm form) {
  if (form == pb::RAW) return rows;
  const bool over_tokens = form == pb::NORM_OVER_TOKENS;
  std::vector<double> squares(over_tokens ? kVisionWidth
                                          : rows.size() / kVisionDims);
  for (size_t i = 0; i < rows.size(); ++i) {
    squares[over_tokens ? i % kVisionWidth : i / kVisionDims] +=
        double{rows[i]} * rows[i];
  }
  std::vector<float> norms;
  for (double square : squares) {
    norms.push_back(static_cast<float>(std::sqrt(square)));
  }
  return norms;
}

std::vector<int> ShapeOf(int patches, pb::CaptureForm form) {
  if (form == pb::RAW) return {patches, kVisionHeads, kVisionDims};
  if (form == pb::NORM_PER_TOKEN) return {patches, kVisionHeads};
  return {kVisionHeads, kVisionDims};
}

class VisionTest : public ImagesTest,
                   public ::testing::WithParamInterface<pb::CaptureForm> {};

INSTANTIATE_TEST_SUITE_P(Forms, VisionTest,
                         ::testing::Values(pb::NORM_OVER_TOKENS,
                                           pb::NORM_PER_TOKEN, pb::RAW),
                         [](const auto& info) {
                           return pb::CaptureForm_Name(info.param);
                         });

TEST_P(VisionTest, EveryFrameEqualsTransformers) {
  for (const std::string prompt : {"p0", "p1"}) {
    const Analysis out = Analyze(WithTower(Golden(prompt), GetParam()));
    ASSERT_TRUE(out.status.ok()) << out.status.error_message();
    const std::vector<Image> images = GoldenImages(kVisionModel, prompt);
    const std::vector<const pb::Layer*> frames = TowerFrames(out);
    EXPECT_EQ(frames.size(), images.size() * 2 * std::size(kVisionPoints));
    for (const pb::Layer* frame : frames) {
      const std::string name =
          absl::StrCat(prompt, " image ", frame->image(), " layer ",
                       frame->layer(), " ", pb::HookPoint_Name(frame->point()));
      ASSERT_LT(frame->image(), static_cast<int>(images.size())) << name;
      const int patches = static_cast<int>(images[frame->image()].patches());
      EXPECT_THAT(frame->shape(),
                  ::testing::ElementsAreArray(ShapeOf(patches, GetParam())))
          << name;
      EXPECT_EQ(frame->phase(), pb::PREFILL);
      EXPECT_EQ(frame->heads_size() + frame->positions_size(), 0) << name;
      EXPECT_FALSE(frame->no_rope()) << name;
      const double nmse =
          Nmse(Floats(frame->data()),
               InForm(GoldenRows(prompt, frame->image(), frame->layer(),
                                 frame->point()),
                      GetParam()));
      EXPECT_TRUE(nmse <= kBound) << name << ": NMSE " << nmse;
    }
  }
}

TEST_P(VisionTest, TheTextsFramesAreAsWithoutTheTowers) {
  pb::AnalyzeRequest with = WithTower(Golden("p1"), GetParam());
  pb::AnalyzeRequest without = with;
  without.mutable_capture()->clear_vision_layers();
  const Analysis a = Analyze(with), b = Analyze(without);
  ASSERT_TRUE(a.status.ok() && b.status.ok());
  EXPECT_TRUE(TowerFrames(b).empty());
  std::string text[2];
  for (const pb::Layer* layer : a.layers()) {
    if (!layer->has_image()) text[0] += layer->data();
  }
  for (const pb::Layer* layer : b.layers()) text[1] += layer->data();
  EXPECT_FALSE(text[1].empty());
  EXPECT_TRUE(text[0] == text[1]);
}

TEST_P(VisionTest, TheEstimateIsWhatIsStreamed) {
  pb::AnalyzeRequest request = WithTower(Golden("p1"), GetParam());
  request.mutable_capture()->set_stage(pb::BEFORE_AND_AFTER);
  request.add_arms()->set_name("a");
  request.add_arms()->set_name("b");
  const Analysis out = Analyze(request);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  int64_t bytes = 0;
  for (const pb::Layer* layer : out.layers()) {
    bytes += static_cast<int64_t>(layer->data().size());
  }
  EXPECT_GT(bytes, 0);
  grpc::ClientContext context;
  pb::EstimateResponse estimate;
  ASSERT_TRUE(stub_->Estimate(&context, request, &estimate).ok());
  EXPECT_EQ(estimate.estimate().streamed_bytes(), bytes);
  EXPECT_EQ(out.finished()->streamed_bytes(), bytes);
}

TEST_P(VisionTest, TheManifestHasADigestForEachFrame) {
  const Analysis out = Analyze(WithTower(Golden("p1"), GetParam()));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  std::map<std::tuple<int, int, int>, const pb::PayloadDigest*> digests;
  for (const auto& digest : out.finished()->manifest().digests()) {
    if (!digest.has_image()) continue;
    digests[{digest.image(), digest.layer(), digest.point()}] = &digest;
  }
  const std::vector<const pb::Layer*> frames = TowerFrames(out);
  EXPECT_EQ(frames.size(), 2u * 2 * std::size(kVisionPoints));
  EXPECT_EQ(digests.size(), frames.size());
  for (const pb::Layer* frame : frames) {
    const auto* digest =
        digests[{frame->image(), frame->layer(), frame->point()}];
    ASSERT_NE(digest, nullptr);
    EXPECT_EQ(digest->bytes(), static_cast<int64_t>(frame->data().size()));
    EXPECT_EQ(digest->crc32c(), frame->crc32c());
    if (GetParam() == pb::RAW) continue;
    Sha256 sha;
    sha.Update(frame->data().data(), frame->data().size());
    EXPECT_EQ(digest->sha256(), sha.FinishHex());
  }
}

TEST_F(ImagesTest, StatisticsOfTheTowerHaveNoWavelengths) {
  pb::AnalyzeRequest request = WithTower(Golden("p1"), pb::NORM_OVER_TOKENS);
  request.mutable_statistics()->set_lambda(1.5);
  const Analysis out = Analyze(request);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  int64_t massive = 0;
  for (const pb::Layer* frame : TowerFrames(out)) {
    const std::vector<float> norms =
        InForm(GoldenRows("p1", frame->image(), frame->layer(), frame->point()),
               pb::NORM_OVER_TOKENS);
    int want = 0;
    double ratio = 0;
    for (int h = 0; h < kVisionHeads; ++h) {
      double mean = 0;
      const float* row = norms.data() + h * kVisionDims;
      for (int d = 0; d < kVisionDims; ++d) mean += row[d] / kVisionDims;
      for (int d = 0; d < kVisionDims; ++d) {
        want += row[d] > 1.5 * mean;
        ratio = std::max(ratio, row[d] / mean);
      }
    }
    const pb::Statistics& got = frame->statistics();
    EXPECT_EQ(got.massive_count(), want);
    EXPECT_NEAR(got.ratio(), ratio, 1e-4);
    EXPECT_FALSE(got.has_low_frequency_share());
    EXPECT_FALSE(got.largest().has_wavelength());
    for (const auto& entry : got.top()) EXPECT_FALSE(entry.has_wavelength());
    massive += want;
  }
  EXPECT_GT(massive, 0);
}

// A pass has room for one of the two arms. Both share the tower's one pass,
// which has long ended when the second arm's pass comes.
TEST_F(ImagesTest, ArmsOfDifferentPassesGetTheTowersFrames) {
  ServerOptions options = TinyOptions();
  options.limits.max_rows_per_pass = 40;
  StartVision(options);
  pb::AnalyzeRequest request = WithTower(Golden("p1"), pb::RAW);
  request.add_arms()->set_name("a");
  request.add_arms()->set_name("b");
  const Analysis out = Analyze(request);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  std::map<std::string, std::string> bytes;
  std::map<std::pair<std::string, int>, int> last;
  for (const pb::Layer* frame : TowerFrames(out)) {
    bytes[frame->arm()] += absl::StrCat(frame->layer(), frame->data());
    int& layer = last[{frame->arm(), frame->image()}];
    EXPECT_GE(frame->layer(), layer);
    layer = frame->layer();
  }
  EXPECT_EQ(bytes.size(), 2u);
  EXPECT_EQ(bytes["a"].size(), bytes["b"].size());
  for (const pb::Layer* frame : TowerFrames(out)) {
    const double nmse =
        Nmse(Floats(frame->data()),
             GoldenRows("p1", frame->image(), frame->layer(), frame->point()));
    EXPECT_TRUE(nmse <= kBound) << frame->arm() << ": NMSE " << nmse;
  }
}

TEST_F(ImagesTest, AnAggregateIsOverAllImages) {
  grpc::ClientContext context;
  auto stream = stub_->AnalyzeMany(&context);
  pb::AnalyzeManyRequest message;
  pb::AnalyzeManySpec* spec = message.mutable_spec();
  *spec->mutable_request() = WithTower(Golden("p0"), pb::NORM_OVER_TOKENS);
  spec->mutable_request()->clear_input();
  spec->set_aggregate(true);
  stream->Write(message);
  for (const std::string prompt : {"p0", "p1"}) {
    message.mutable_prompt()->set_id(prompt);
    *message.mutable_prompt()->mutable_input() = Golden(prompt).input();
    stream->Write(message);
  }
  stream->WritesDone();
  std::map<std::tuple<bool, int, int>, pb::AggregateEntry> entries;
  pb::AnalyzeManyEvent event;
  while (stream->Read(&event)) {
    for (const auto& entry : event.aggregate().entries()) {
      entries[{entry.vision(), entry.layer(), entry.point()}] = entry;
    }
  }
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(entries.size(), 2u * 2 * std::size(kVisionPoints));
  const pb::AggregateEntry& text = entries[{false, 1, pb::HOOK_ROT_K}];
  EXPECT_EQ(text.count(), 2);
  const pb::AggregateEntry& tower = entries[{true, 1, pb::HOOK_ROT_K}];
  EXPECT_EQ(tower.count(), 3);  // p0 has one image, p1 has two
  std::vector<float> mean(kVisionWidth);
  for (const auto& [prompt, image] :
       {std::pair{"p0", 0}, {"p1", 0}, {"p1", 1}}) {
    const std::vector<float> norms = InForm(
        GoldenRows(prompt, image, 1, pb::HOOK_ROT_K), pb::NORM_OVER_TOKENS);
    for (int i = 0; i < kVisionWidth; ++i) mean[i] += norms[i] / 3;
  }
  EXPECT_TRUE(Nmse(Floats(tower.mean()), mean) <= kBound);
}

}  // namespace
}  // namespace qk::testing
