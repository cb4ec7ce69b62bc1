#include "client/qkctl/flags/arm_spec.h"

#include <google/protobuf/text_format.h>

#include <string>

#include "client/files/arm_kind.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct GoodCase {
  const char* spec;
  const char* arm;  // text proto
};

class GoodArm : public ::testing::TestWithParam<GoodCase> {};

TEST_P(GoodArm, Parses) {
  absl::StatusOr<v1::Arm> arm = ParseArm(GetParam().spec);
  ASSERT_TRUE(arm.ok()) << arm.status();
  v1::Arm expected;
  ASSERT_TRUE(
      google::protobuf::TextFormat::ParseFromString(GetParam().arm, &expected));
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(*arm, expected))
      << arm->DebugString();
}

const GoodCase kGoodCases[] = {
    {"clean", "name: 'clean'"},
    {"base=clean", "name: 'base'"},
    {"top_k:1", "name: 'top_k:1' disruptions { top_k { k: 1 } }"},
    {"bottom_k:3", "name: 'bottom_k:3' disruptions { bottom_k { k: 3 } }"},
    {"t=top_k:1,tower=vision,layers=0-1",
     "name: 't' disruptions { top_k { k: 1 } tower: VISION layers: [0, 1] }"},
    {"top_k:1,replace=zero",
     "name: 'top_k:1,replace=zero' disruptions { top_k { k: 1 } replace: ZERO "
     "}"},
    {"threshold:5",
     "name: 'threshold:5' disruptions { threshold { lambda: 5 } "
     "}"},
    {"threshold", "name: 'threshold' disruptions { threshold {} }"},
    {"threshold,lambda=2.5",
     "name: 'threshold,lambda=2.5' disruptions { threshold { lambda: 2.5 } }"},
    {"top_k:1,point=pre_rope",
     "name: 'top_k:1,point=pre_rope' disruptions { top_k { k: 1 } point: "
     "PRE_ROPE }"},
    {"random_k:1,seed=7",
     "name: 'random_k:1,seed=7' disruptions { random_k { k: 1 seed: 7 } }"},
    {"r=random_k:2,seed=18446744073709551615,exclude_top=0",
     "name: 'r' disruptions { random_k { k: 2 seed: 18446744073709551615 "
     "exclude_top: 0 } }"},
    {"preset:rope_with_llm/llama",
     "name: 'preset:rope_with_llm/llama' preset { name: 'rope_with_llm/llama' "
     "}"},
    {"p-1=preset:rope_with_llm/mistral/control,seed=3",
     "name: 'p-1' preset { name: 'rope_with_llm/mistral/control' seed: 3 }"},
    {"q=clean,model=tiny-bf16", "name: 'q' model: 'tiny-bf16'"},
    {"big=top_k:4,tensors=q+v,axis=per_token,replace=scale,factor=0.5,"
     "phase=both,reselect=true,kv_cache=attention_only,stat_span=1:,"
     "positions=:7,layers=0-2+7,heads=1,kv_grouping=query_head",
     "name: 'big' disruptions { top_k { k: 4 } tensors: QKV_TENSOR_Q tensors: "
     "QKV_TENSOR_V axis: PER_TOKEN replace: SCALE factor: 0.5 phase: BOTH "
     "reselect: true kv_cache: ATTENTION_ONLY stat_span { begin: 1 } positions "
     "{ end: 7 } layers: [0, 1, 2, 7] heads: 1 kv_grouping: QUERY_HEAD }"},
    {"explicit:0/12+3/40,layers=0+1",
     "name: 'explicit:0/12_3/40,layers=0_1' disruptions { explicit { entries { "
     "head: 0 dim: 12 } entries { head: 3 dim: 40 } } layers: [0, 1] }"},
    {"two=top_k:1,layers=0,model=m;bottom_k:1,layers=1,replace=zero",
     "name: 'two' model: 'm' disruptions { top_k { k: 1 } layers: 0 } "
     "disruptions { bottom_k { k: 1 } layers: 1 replace: ZERO }"},
    {"top_k:1,layers=0;bottom_k:1,layers=1",
     "name: 'top_k:1,layers=0_bottom_k:1,layers=1' disruptions { top_k { k: 1 "
     "} layers: 0 } disruptions { bottom_k { k: 1 } layers: 1 }"},
};

INSTANTIATE_TEST_SUITE_P(All, GoodArm, ::testing::ValuesIn(kGoodCases));

struct BadCase {
  const char* spec;
  const char* message;  // besides the arm itself
};

class BadArm : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadArm, SaysWhatIsAllowed) {
  absl::StatusOr<v1::Arm> arm = ParseArm(GetParam().spec);
  ASSERT_FALSE(arm.ok()) << arm->DebugString();
  EXPECT_EQ(arm.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(arm.status().message()),
              AllOf(HasSubstr(GetParam().spec), HasSubstr(GetParam().message)));
}

const BadCase kBadCases[] = {
    {"", "is not one of clean, top_k:K"},
    {"topk:1", "did you mean top_k?"},
    {"a=b=clean", "is not one of clean"},
    {"top_k", "needs the number of dims, as in top_k:1"},
    {"top_k:one", "got 'one'"},
    {"top_k:99999999999", "needs the number of dims"},
    {"top_k:1,replace=none",
     "replace: 'none' is not one of pooled_mean, per_dim_mean, zero, scale"},
    {"top_k:1,replac=zero", "did you mean replace?"},
    {"top_k:1,zero", "'zero' is not KEY=VALUE"},
    {"top_k:1,axis=unspecified", "is not one of per_head, per_token"},
    {"top_k:1,axis=axis_unspecified", "is not one of per_head, per_token"},
    {"top_k:1,tensors=q+x", "tensors: 'x' is not one of q, k, v"},
    {"top_k:1,replace=zero,replace=scale", "'replace' is given twice"},
    {"top_k:1,tensors=q,tensors=k", "'tensors' is given twice"},
    {"threshold:5,lambda=2", "'lambda' is given twice"},
    {"preset:x,seed=1,seed=2", "'seed' is given twice"},
    {"clean,model=a,model=b", "'model' is given twice"},
    {"top_k:1,layers=0,model=a;top_k:1,layers=1,model=b",
     "'model' is given twice"},
    {"top_k=1", "'1' is not one of clean"},
    {"random_k=2,seed=1", "; did you mean random_k:2,seed=1?"},
    {"clean:1", "clean takes no argument"},
    {"top_k:1,seed=7", "seed: only random_k has a seed"},
    {"top_k:1,lambda=7", "lambda: only threshold has a lambda"},
    {"top_k:1,exclude_top=7", "exclude_top: only random_k"},
    {"random_k:1,seed=-1", "seed: '-1' is not a whole number >= 0"},
    {"threshold:nan", "lambda: 'nan' is not a finite number"},
    {"top_k:1,factor=inf", "factor: 'inf' is not a finite number"},
    {"top_k:1,reselect=maybe", "reselect: 'maybe' is not true or false"},
    {"top_k:1,layers=3-1", "layers: '3-1' is not a range"},
    {"top_k:1,layers=0-2000000000", "more than 65536 numbers"},
    {"top_k:1,stat_span=1-3", "write BEGIN:END"},
    {"top_k:1,positions=-1:3", "write BEGIN:END"},
    {"explicit:0/12+3", "explicit: '3' is not HEAD/DIM"},
    {"explicit", "is not HEAD/DIM"},
    {"clean,replace=zero", "'replace' has no meaning for 'clean'"},
    {"preset:x,replace=zero", "'replace' has no meaning for 'preset:x'"},
    {"clean;top_k:1", "cannot be joined"},
    {"top_k:1;clean", "cannot be joined"},
    {"top_k:1;preset:x", "cannot be joined"},
    {"top_k:1,tensors=q+k,axis=per_head,replace=zero,phase=prefill,layers=0",
     "set a shorter name with NAME=SPEC"},
};

INSTANTIATE_TEST_SUITE_P(All, BadArm, ::testing::ValuesIn(kBadCases));

TEST(IsUndisrupted, SeesRulesAndPresets) {
  EXPECT_TRUE(IsUndisrupted(*ParseArm("clean,model=other")));
  EXPECT_FALSE(IsUndisrupted(*ParseArm("top_k:0")));
  EXPECT_FALSE(IsUndisrupted(*ParseArm("preset:rope_with_llm/llama")));
}

}  // namespace
}  // namespace qk::client
