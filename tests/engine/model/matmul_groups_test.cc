#include "engine/model/matmul_groups.h"

#include "gmock/gmock.h"

namespace qk {
namespace {

using ::testing::ElementsAre;

class FakeMatrix final : public Matrix {
 public:
  FakeMatrix(MatMulChoice choice, int out, int in)
      : choice_(std::move(choice)), out_(out), in_(in) {}
  int out_features() const override { return out_; }
  int in_features() const override { return in_; }
  int64_t bytes() const override { return 0; }
  MatMulChoice choice() const override { return choice_; }

 private:
  const MatMulChoice choice_;
  const int out_, in_;
};

const MatMulChoice kLibrary = {"cublaslt-13.1.0", ""};
const MatMulChoice kOwn = {"own-sm_90", "algorithm 6: bytes differ"};

BackendInfo Backend() {
  BackendInfo info;
  info.kernel_ids = {"matmul.f32:own-sm_90",
                     "matmul.bf16:cublaslt-13.1.0-where-proved-else-own-sm_90",
                     "attention:own-sm_90"};
  return info;
}

TEST(MatMulGroupsTest, MatricesOfOneShapeAndChoiceAreOneGroup) {
  std::vector<MatMulGroup> groups;
  CountMatrix(FakeMatrix(kLibrary, 48, 64), &groups);
  CountMatrix(FakeMatrix(kOwn, 48, 64), &groups);
  CountMatrix(FakeMatrix(kLibrary, 64, 48), &groups);
  CountMatrix(FakeMatrix(kLibrary, 48, 64), &groups);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].choice, kLibrary);
  EXPECT_EQ(groups[0].out_features, 48);
  EXPECT_EQ(groups[0].in_features, 64);
  EXPECT_EQ(groups[0].matrices, 2);
  EXPECT_EQ(groups[1].choice, kOwn);
  EXPECT_EQ(groups[1].matrices, 1);
  EXPECT_EQ(groups[2].out_features, 64);
}

TEST(MatMulGroupsTest, AManifestNamesWhatMultipliesTheModel) {
  EXPECT_THAT(KernelIdsOf(Backend(), ComputeType::kBF16,
                          {{kLibrary, 48, 64, 2}, {kLibrary, 64, 48, 1}}),
              ElementsAre("matmul.f32:own-sm_90", "matmul.bf16:cublaslt-13.1.0",
                          "attention:own-sm_90"));
  EXPECT_THAT(
      KernelIdsOf(
          Backend(), ComputeType::kBF16,
          {{kOwn, 48, 64, 2}, {kLibrary, 64, 48, 1}, {kOwn, 96, 64, 1}}),
      ElementsAre(
          "matmul.f32:own-sm_90", "matmul.bf16:cublaslt-13.1.0 (64, 48)",
          "matmul.bf16:own-sm_90 (48, 64) (96, 64)", "attention:own-sm_90"));
  EXPECT_EQ(KernelIdsOf(Backend(), ComputeType::kF32,
                        {{{"own-sm_90", ""}, 48, 64, 2}}),
            Backend().kernel_ids);
  EXPECT_EQ(KernelIdsOf(Backend(), ComputeType::kBF16, {}),
            Backend().kernel_ids);
}

}  // namespace
}  // namespace qk
