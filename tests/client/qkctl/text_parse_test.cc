#include "client/qkctl/flags/text_parse.h"

#include <limits>
#include <string>

#include "client/cpp/analysis_result.h"
#include "client/files/norm_statistics.h"
#include "engine/base/nearest_name.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseIntList, TakesNumbersAndRanges) {
  EXPECT_THAT(*ParseIntList("7"), ElementsAre(7));
  EXPECT_THAT(*ParseIntList("0-3,7"), ElementsAre(0, 1, 2, 3, 7));
  EXPECT_THAT(*ParseIntList("0-1+7"), ElementsAre(0, 1, 7));
  EXPECT_THAT(*ParseIntList(" 3, 4 "), ElementsAre(3, 4));
  EXPECT_THAT(*ParseIntList("2147483647-2147483647"), ElementsAre(2147483647));
}

TEST(ParseIntList, RefusesTheRest) {
  for (const char* text : {"", "a", "1,,2", "-1", "1-", "3-1", "1-2-3",
                           "2147483648", "0-4294967295", "1.5"}) {
    EXPECT_FALSE(ParseIntList(text).ok()) << text;
  }
  EXPECT_THAT(std::string(ParseIntList("0-65536").status().message()),
              HasSubstr("more than 65536"));
}

TEST(ParseEnum, NamesWhatIsAllowed) {
  EXPECT_EQ(*ParseEnum(v1::HookPoint_descriptor(), "hook_rot_q"),
            v1::HOOK_ROT_Q);
  EXPECT_EQ(*ParseEnum(v1::HookPoint_descriptor(), "HOOK_V"), v1::HOOK_V);
  EXPECT_THAT(
      std::string(
          ParseEnum(v1::Stage_descriptor(), "befor").status().message()),
      HasSubstr("before, after, before_and_after; did you mean before?"));
}

TEST(ClosestName, IsSilentWhenNothingIsClose) {
  EXPECT_EQ(NearestName("prompd", {"prompt", "points"}), "prompt");
  EXPECT_EQ(NearestName("xyzzy", {"prompt", "points"}), "");
}

TEST(TensorName, TellsStagePhaseAndStep) {
  v1::Layer header;
  header.set_arm("clean");
  header.set_layer(3);
  header.set_point(v1::HOOK_ROT_Q);
  header.set_stage(v1::BEFORE);
  header.set_phase(v1::PREFILL);
  EXPECT_EQ(TensorName(header), "clean/layer.3.hook_rot_q");
  header.set_stage(v1::AFTER);
  EXPECT_EQ(TensorName(header), "clean/layer.3.hook_rot_q.after");
  header.set_phase(v1::DECODE);
  header.set_step(2);
  EXPECT_EQ(TensorName(header), "clean/layer.3.hook_rot_q.after.decode.step.2");
}

std::string Bytes(std::initializer_list<uint16_t> words) {
  std::string bytes;
  for (const uint16_t word : words) {
    bytes += {static_cast<char>(word & 0xff), static_cast<char>(word >> 8)};
  }
  return bytes;
}

TEST(TensorValues, ReadsHalfAndBfloat) {
  // The values are 1, -2, the largest and the smallest half, and infinity.
  EXPECT_THAT(
      *TensorValues(v1::F16, Bytes({0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00})),
      ElementsAre(1.0f, -2.0f, 65504.0f, 5.9604645e-8f,
                  std::numeric_limits<float>::infinity()));
  EXPECT_THAT(*TensorValues(v1::BF16, Bytes({0x3f80, 0xc040})),
              ElementsAre(1.0f, -3.0f));
  EXPECT_THAT(*TensorValues(v1::F16, Bytes({0x7e00})),
              ElementsAre(::testing::NanSensitiveFloatEq(
                  std::numeric_limits<float>::quiet_NaN())));
  EXPECT_FALSE(TensorValues(v1::F32, "abc").ok());
}

TEST(ComputeNormStatistics, CountsPerHead) {
  // Head 0 has mean 2 and one entry above 2 x mean; 1 is all zero; 2 is even.
  const std::vector<float> norms = {1, 1, 1, 5, 0, 0, 0, 0, 3, 3, 3, 3};
  const NormStatistics statistics = ComputeNormStatistics(norms, 4, 2.0);
  EXPECT_EQ(statistics.massive_count, 1);
  EXPECT_DOUBLE_EQ(statistics.ratio, 2.5);
}

TEST(ComputeNormStatistics, TellsValuesThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  NormStatistics statistics =
      ComputeNormStatistics({1, 1, 1, 5, nan, inf, 0, 0}, 4, 2.0);
  EXPECT_EQ(statistics.non_finite, 2);
  EXPECT_DOUBLE_EQ(statistics.ratio, 2.5);  // of the others
  statistics = ComputeNormStatistics({nan, inf, nan, nan}, 4, 2.0);
  EXPECT_EQ(statistics.non_finite, 4);
  EXPECT_EQ(statistics.massive_count, 0);
  EXPECT_TRUE(std::isnan(statistics.ratio));
}

TEST(CompareValues, DoesNotPassOverNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(CompareValues({1, nan}, {1, nan}).count, 0);
  const Difference difference = CompareValues({1, 2, nan}, {1, 3, 4});
  EXPECT_EQ(difference.count, 2);
  EXPECT_EQ(difference.first, 1);
  EXPECT_EQ(difference.largest, std::numeric_limits<double>::infinity());
  EXPECT_EQ(difference.largest_at, 2);
  // The values are equal as numbers, but not as bytes.
  EXPECT_EQ(CompareValues({0.0f}, {-0.0f}).count, 1);
}

}  // namespace
}  // namespace qk::client
