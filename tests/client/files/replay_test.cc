#include "client/files/replay.h"

#include <string>

#include "absl/strings/str_join.h"
#include "client/cpp/stream_checker.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

AnalysisResult RunFake(const FakeStreamOptions& options = {}) {
  AnalysisResult result;
  StreamChecker checker;
  for (v1::AnalyzeEvent& event : FakeStream(options)) {
    auto tensor = checker.Add(&event);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    if (tensor->has_value()) result.tensors.push_back(**tensor);
    if (event.has_finished()) result.finished = event.finished();
  }
  return result;
}

SavedAnalysis Saved(bool with_tensors) {
  const AnalysisResult result = RunFake();
  SavedAnalysis saved;
  saved.manifest = result.finished.manifest();
  if (with_tensors) saved.tensors = result.tensors;
  return saved;
}

std::string Text(const ReplayReport& report) {
  return absl::StrJoin(report.lines, "\n");
}

TEST(Replay, EqualRunsAreIdentical) {
  for (const bool with_tensors : {false, true}) {
    const ReplayReport report = CompareRuns(Saved(with_tensors), RunFake());
    EXPECT_EQ(report.verdict, ReplayVerdict::kIdentical);
    EXPECT_THAT(Text(report), HasSubstr("identical: 12 payloads"));
  }
}

TEST(Replay, TheTowersPayloadsAreComparedToo) {
  FakeStreamOptions options;
  options.images = 2;
  AnalysisResult before = RunFake(options), after = RunFake(options);
  SavedAnalysis saved;
  saved.manifest = before.finished.manifest();
  const ReplayReport same = CompareRuns(saved, after);
  EXPECT_EQ(same.verdict, ReplayVerdict::kIdentical);
  EXPECT_THAT(Text(same), HasSubstr("identical: 24 payloads"));
  for (auto& digest : *after.finished.mutable_manifest()->mutable_digests()) {
    if (digest.has_image() && digest.image() == 1) digest.set_sha256("11");
  }
  EXPECT_THAT(Text(CompareRuns(saved, after)),
              HasSubstr("6 of 24 payloads differ, first "
                        "clean/image.1.vision.0.hook_rot_q"));
}

TEST(Replay, TheRequestKeepsWhatTheManifestHasOfImages) {
  FakeStreamOptions options;
  options.images = 2;
  const AnalysisResult result = RunFake(options);
  const v1::AnalyzeRequest request = ReplayRequest(result.finished.manifest());
  ASSERT_EQ(request.input().images_size(), 2);
  EXPECT_EQ(request.input().images(1).sha256(), "00");
  EXPECT_EQ(request.input().token_ids().ids_size(), 3);
}

TEST(Replay, NamesTheFirstDifferenceAndTheLargest) {
  FakeStreamOptions options;
  options.shift = 0.5;
  const ReplayReport report = CompareRuns(Saved(true), RunFake(options));
  EXPECT_EQ(report.verdict, ReplayVerdict::kDiffers);
  EXPECT_THAT(Text(report), HasSubstr("12 of 12 payloads differ, first "
                                      "clean/layer.0.hook_rot_q"));
  EXPECT_THAT(Text(report), HasSubstr("first differing element: "
                                      "clean/layer.0.hook_rot_q[0, 0]: was 1, "
                                      "is 1.5 (8 of 8 elements"));
  EXPECT_THAT(Text(report), HasSubstr("largest difference: 0.5 at "));
}

TEST(Replay, WithoutValuesItStillNamesTheTensor) {
  FakeStreamOptions options;
  options.shift = 0.5;
  const ReplayReport report = CompareRuns(Saved(false), RunFake(options));
  EXPECT_EQ(report.verdict, ReplayVerdict::kDiffers);
  EXPECT_THAT(Text(report), HasSubstr("first clean/layer.0.hook_rot_q"));
  EXPECT_THAT(Text(report), HasSubstr("a manifest has digests but no values"));
}

TEST(Replay, OnOtherKernelsItIsNotComparable) {
  FakeStreamOptions options;
  options.kernel_ids = {"other-kernel"};
  options.shift = 0.25;
  const ReplayReport report = CompareRuns(Saved(true), RunFake(options));
  EXPECT_EQ(report.verdict, ReplayVerdict::kNotComparable);
  EXPECT_THAT(Text(report),
              HasSubstr("not comparable bit for bit: kernel ids was "
                        "'fake-kernel', is 'other-kernel'"));
  EXPECT_THAT(Text(report), HasSubstr("largest difference: 0.25 at "));
}

TEST(Replay, MissingTensorsAreADifference) {
  FakeStreamOptions options;
  options.layers = 1;
  const ReplayReport report = CompareRuns(Saved(true), RunFake(options));
  EXPECT_EQ(report.verdict, ReplayVerdict::kDiffers);
  EXPECT_THAT(Text(report), HasSubstr("(missing now)"));
  EXPECT_THAT(Text(report), Not(HasSubstr("first differing element")));
}

TEST(Replay, ARunWithoutTensorsProvesNothing) {
  FakeStreamOptions options;
  options.layers = 0;
  SavedAnalysis saved;
  saved.manifest = RunFake(options).finished.manifest();
  EXPECT_EQ(CompareRuns(saved, RunFake(options)).verdict,
            ReplayVerdict::kNotComparable);
}

TEST(ReplayRequest, SendsTokensAndRules) {
  v1::Manifest manifest;
  manifest.set_model("m");
  manifest.add_token_ids(5);
  manifest.mutable_expanded()->mutable_input()->set_text("hello");
  v1::Arm* arm = manifest.mutable_expanded()->add_arms();
  arm->mutable_preset()->set_name("rope_with_llm/llama");
  arm->add_disruptions()->mutable_top_k()->set_k(1);
  const v1::AnalyzeRequest request = ReplayRequest(manifest);
  EXPECT_EQ(request.model(), "m");
  EXPECT_THAT(request.input().token_ids().ids(), ElementsAre(5));
  EXPECT_FALSE(request.arms(0).has_preset());
  EXPECT_EQ(request.arms(0).disruptions_size(), 1);
}

}  // namespace
}  // namespace qk::client
