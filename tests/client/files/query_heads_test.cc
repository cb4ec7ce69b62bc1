// Tests the comparison of tensors of KV heads with tensors of query heads, on
// values written by hand.
#include "client/files/query_heads.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Layer Header(v1::CaptureForm form, std::vector<int> shape, int group,
                 std::vector<int> heads = {}) {
  v1::Layer header;
  header.set_arm("a");
  header.set_point(v1::HOOK_ROT_K);
  header.set_form(form);
  header.mutable_shape()->Assign(shape.begin(), shape.end());
  header.set_group_size(group);
  header.mutable_heads()->Assign(heads.begin(), heads.end());
  return header;
}

TEST(QueryHeads, OnlyOneSideHasThem) {
  const v1::Layer kv = Header(v1::RAW, {1, 2, 1}, 3);
  const v1::Layer query = Header(v1::RAW, {1, 6, 1}, 1);
  const v1::Layer old = Header(v1::RAW, {1, 6, 1}, 0);
  EXPECT_TRUE(OnlyOneInQueryHeads(kv, query));
  EXPECT_TRUE(OnlyOneInQueryHeads(query, kv));
  EXPECT_FALSE(OnlyOneInQueryHeads(kv, kv));
  EXPECT_FALSE(OnlyOneInQueryHeads(query, query));
  EXPECT_FALSE(OnlyOneInQueryHeads(kv, old));
  EXPECT_FALSE(OnlyOneInQueryHeads(old, query));
}

TEST(QueryHeads, EachKvHeadIsRepeatedForItsGroup) {
  EXPECT_THAT(
      *RepeatKvHeads(Header(v1::NORM_OVER_TOKENS, {2, 2}, 3), {1, 2, 3, 4},
                     Header(v1::NORM_OVER_TOKENS, {6, 2}, 1)),
      ElementsAre(1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4));
  EXPECT_THAT(
      *RepeatKvHeads(Header(v1::NORM_PER_TOKEN, {2, 2}, 2), {1, 2, 3, 4},
                     Header(v1::NORM_PER_TOKEN, {2, 4}, 1)),
      ElementsAre(1, 1, 2, 2, 3, 3, 4, 4));
  EXPECT_THAT(*RepeatKvHeads(Header(v1::RAW, {2, 2, 1}, 2), {1, 2, 3, 4},
                             Header(v1::RAW, {2, 4, 1}, 1)),
              ElementsAre(1, 1, 2, 2, 3, 3, 4, 4));
}

TEST(QueryHeads, OnlyTheCapturedHeadsAreThere) {
  // Query heads 2, 4 and 5 of 9 on 3; KV heads 0 and 1 serve them.
  EXPECT_THAT(
      *RepeatKvHeads(Header(v1::NORM_OVER_TOKENS, {2, 1}, 3, {0, 1}), {7, 8},
                     Header(v1::NORM_OVER_TOKENS, {3, 1}, 1, {2, 4, 5})),
      ElementsAre(7, 8, 8));
  // KV head 1 alone.
  EXPECT_THAT(*RepeatKvHeads(Header(v1::NORM_OVER_TOKENS, {1, 1}, 3, {1}), {8},
                             Header(v1::NORM_OVER_TOKENS, {2, 1}, 1, {3, 5})),
              ElementsAre(8, 8));
}

TEST(QueryHeads, OtherShapesAreRefused) {
  const auto refused = [](const v1::Layer& header, std::vector<float> values,
                          const v1::Layer& like) {
    const auto repeated = RepeatKvHeads(header, values, like);
    EXPECT_EQ(repeated.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(repeated.status().message()),
                HasSubstr("same model, prompt length and heads"));
  };
  // Another head_dim, another prompt, heads that are not there.
  refused(Header(v1::NORM_OVER_TOKENS, {1, 2}, 2), {1, 2},
          Header(v1::NORM_OVER_TOKENS, {2, 3}, 1));
  refused(Header(v1::RAW, {1, 1, 1}, 2), {1}, Header(v1::RAW, {2, 2, 1}, 1));
  refused(Header(v1::NORM_OVER_TOKENS, {1, 1}, 2), {1},
          Header(v1::NORM_OVER_TOKENS, {4, 1}, 1));
  refused(Header(v1::NORM_OVER_TOKENS, {1, 1}, 2, {1}), {1},
          Header(v1::NORM_OVER_TOKENS, {1, 1}, 1, {0}));
}

}  // namespace
}  // namespace qk::client
