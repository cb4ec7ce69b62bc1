// Tests what a person sees of an analysis.
#include <limits>
#include <string>

#include "client/cpp/stream_checker.h"
#include "client/qkctl/output/analyze_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::HasSubstr;
using ::testing::Not;

// Returns the view's whole output for a stream.
std::string Show(const FakeStreamOptions& stream, AnalyzeView::Options options,
                 bool color = false) {
  Console console(color, /*progress=*/false);
  AnalyzeView view(options, &console);
  AnalysisResult result;
  StreamChecker checker;
  ::testing::internal::CaptureStdout();
  for (v1::AnalyzeEvent& event : FakeStream(stream)) {
    auto tensor = checker.Add(&event);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    if (tensor->has_value()) {
      view.OnTensor(**tensor);
      result.tensors.push_back(**tensor);
      continue;
    }
    view.OnEvent(event);
    if (event.has_started()) result.started = event.started();
    if (event.has_applied()) result.applied.push_back(event.applied());
    if (event.has_comparison()) {
      result.comparisons.push_back(event.comparison());
    }
  }
  view.Finish(result);
  console.Print(Explain(result));
  return ::testing::internal::GetCapturedStdout();
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(AnalyzeView, ShowsARowPerLayerOfTheFirstArm) {
  const std::string text = Show({}, {});
  EXPECT_THAT(text, HasSubstr("fake: 3 tokens; arm clean\n"));
  EXPECT_EQ(Count(text, "628"), 2u * 2) << text;  // two layers, Q and K
  EXPECT_THAT(text, HasSubstr("    0         1    3.7       0,3        628"));
  EXPECT_THAT(text, Not(HasSubstr("\033[")));
}

TEST(AnalyzeView, ShowsTheTowersRowsOnTheirOwn) {
  FakeStreamOptions stream;
  stream.images = 2;
  const std::string text = Show(stream, {});
  EXPECT_THAT(text, HasSubstr("vision tower, image.layer:\n"));
  EXPECT_THAT(text, HasSubstr("\n  0.0         1    3.7       0,3          -"));
  EXPECT_THAT(text, HasSubstr("\n  1.0         1    3.7"));
  EXPECT_THAT(text, HasSubstr("\ntext:\n"));
  EXPECT_THAT(text, HasSubstr("\n    1         1    3.7       0,3        628"));
  // The sentences cover the text only.
  EXPECT_THAT(text, HasSubstr("over the 2 layers of arm clean: Q 2 "));
}

TEST(AnalyzeView, ShowsEveryArmWhenAsked) {
  const std::string text = Show({}, {.all_arms = true});
  EXPECT_EQ(Count(text, "628"), 2u * 2 * 2) << text;
  EXPECT_THAT(text, HasSubstr("\ntop_k:1      0"));
}

TEST(AnalyzeView, EndsWithALinePerArm) {
  const std::string text = Show({}, {});
  EXPECT_THAT(text, HasSubstr("clean      -2.0000      0.0000        0/3"));
  EXPECT_THAT(text, HasSubstr("top_k:1    -3.0000*     0.5000        3/3"));
  EXPECT_THAT(text, HasSubstr("* not causal"));
}

// A baseline is at no distance from itself, which says nothing about its rules.
TEST(AnalyzeView, ComparesNoDisruptedArmWithItself) {
  FakeStreamOptions stream;
  stream.arms = {"top_k:1"};
  const std::string alone = Show(stream, {});
  EXPECT_THAT(alone, HasSubstr("top_k:1    -2.0000*          -          -"));
  EXPECT_THAT(alone, HasSubstr("KL and flips need another arm, such as --arm "
                               "clean.\n"));
  EXPECT_THAT(alone, Not(HasSubstr("nats, from")));
  stream.arms = {"top_k:1", "top_k:2"};
  const std::string both = Show(stream, {});
  EXPECT_THAT(both, HasSubstr("top_k:1    -2.0000*          -          -"));
  EXPECT_THAT(both, HasSubstr("top_k:2    -3.0000*     0.5000        3/3"));
  EXPECT_THAT(both, HasSubstr("nats, from top_k:1."));
}

TEST(AnalyzeView, SaysNothingOfCausesWithoutADisruption) {
  FakeStreamOptions stream;
  stream.arms = {"clean"};
  EXPECT_THAT(Show(stream, {}), Not(HasSubstr("not causal")));
}

TEST(AnalyzeView, ColoursOnlyWhenTold) {
  EXPECT_THAT(Show({}, {}, /*color=*/true), HasSubstr("\033[33m"));
}

TEST(AnalyzeView, SummarisesRawValues) {
  FakeStreamOptions stream;
  stream.form = v1::RAW;
  EXPECT_THAT(Show(stream, {}),
              HasSubstr("clean/layer.0.hook_rot_q             (1, 2, 4)  mean "
                        "|x| 5.875  max |x| 40"));
}

TEST(AnalyzeView, RawValuesThatAreNotFiniteHaveNoMean) {
  FakeStreamOptions stream;
  stream.form = v1::RAW;
  stream.shift = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Show(stream, {}),
              HasSubstr("clean/layer.0.hook_rot_q             (1, 2, 4)  mean "
                        "|x| nan  max |x| nan  8 not finite\n"));
}

TEST(Explain, SaysWhatTheNumbersSay) {
  FakeStreamOptions stream;
  stream.arms = {"clean", "top_k:1", "bottom_k:1"};
  const std::string text = Show(stream, {});
  EXPECT_THAT(text, HasSubstr("Q 2 (largest 3.7 x its head's mean), K 0"));
  EXPECT_THAT(text, HasSubstr("log-probability is -2.00 under clean; top_k:1 "
                              "moves it to -3.00 (KL 0.500, 3 of 3"));
}

TEST(Printable, EscapesControls) {
  EXPECT_EQ(Printable("a\n\033[2J"), "a\\n\\x1b[2J");
  EXPECT_EQ(Printable("\u009b2J\x7f \u202e\u00fc\U000E0041\xff"),
            "\\u009b2J\\x7f \\u202e\u00fc\\ue0041\\xff");
}

}  // namespace
}  // namespace qk::client
