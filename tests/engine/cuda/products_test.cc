// Which kernel multiplies a weight, with a fake cuBLASLt.
#include "gmock/gmock.h"
#include "tests/engine/backend/compare.h"
#include "tests/engine/backend/conformance.h"
#include "tests/engine/cuda/backend_testing.h"
#include "tests/engine/cuda/fake_cublaslt.h"

namespace qk::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kOut = 48, kIn = 64, kRows = 21;

class FakeCublasLtProductsTest : public ::testing::Test {
 protected:
  FakeCublasLtProductsTest() {
    FakeCublasLtFail(nullptr, 0);
    Offer(kFakeRight);
  }
  ~FakeCublasLtProductsTest() override { EXPECT_EQ(FakeCublasLtLive(), 0); }

  static void Offer(const FakeAlgorithm& algorithm) {
    FakeCublasLtOffer(&algorithm, 1);
  }
  static absl::StatusOr<std::unique_ptr<Backend>> Make(
      MatMulLibrary use, const std::string& path = QK_FAKE_CUBLASLT) {
    return cuda::MakeCudaBackend(std::make_shared<cuda_on_cpu::FakeRuntime>(
                                     cuda_on_cpu::Launches::kUnseen),
                                 1, {.matmul = use, .cublaslt_file = path});
  }
  static std::string KernelOf(const Backend& backend) {
    return backend.info().kernel_ids[1];
  }

  absl::StatusOr<std::unique_ptr<Matrix>> Pack(Backend& backend) {
    return backend.PackMatrix(kOut, kIn, ComputeType::kBF16,
                              {[&](int64_t begin, int64_t end, float* out) {
                                std::copy(w_.begin() + begin * kIn,
                                          w_.begin() + end * kIn, out);
                              }},
                              bias_.data());
  }

  // out (count, kOut) = [before +] the product of `count` rows from `first` on.
  std::vector<float> Run(Backend& backend, int first, int count, bool add) {
    const auto matrix = Pack(backend);
    EXPECT_TRUE(matrix.ok()) << matrix.status();
    const DeviceVector<float> x(
        backend, std::vector<float>(x_.begin() + first * kIn,
                                    x_.begin() + (first + count) * kIn));
    DeviceVector<float> out(
        backend, std::vector<float>(before_.begin() + first * kOut,
                                    before_.begin() + (first + count) * kOut));
    backend.MatMul(x.data(), {{**matrix, out.data(), add}}, count);
    return out.Read();
  }

  std::vector<double> Want(bool add) const {
    std::vector<double> want;
    for (int r = 0; r < kRows; ++r) {
      for (int o = 0; o < kOut; ++o) {
        double sum = bias_[o] + (add ? before_[r * kOut + o] : 0.0);
        for (int i = 0; i < kIn; ++i) {
          sum += double{FromBF16(RoundToBF16(x_[r * kIn + i]))} *
                 FromBF16(RoundToBF16(w_[o * kIn + i]));
        }
        want.push_back(sum);
      }
    }
    return want;
  }

  Random random_{11};
  const std::vector<float> w_ = random_.Normal(kOut * kIn),
                           bias_ = random_.Normal(kOut),
                           x_ = random_.Normal(kRows * kIn),
                           before_ = random_.Normal(kRows * kOut);
};

TEST_F(FakeCublasLtProductsTest, TheLibraryMultipliesWhereTheProbePasses) {
  for (const MatMulLibrary use :
       {MatMulLibrary::kAuto, MatMulLibrary::kCublasLt}) {
    const auto backend = Make(use);
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_THAT(KernelOf(**backend), HasSubstr("matmul.bf16:cublaslt-13.2.5"));
    EXPECT_EQ(Pack(**backend).value()->choice(),
              (MatMulChoice{"cublaslt-13.2.5", ""}));
    for (const bool add : {false, true}) {
      const int64_t before = FakeCublasLtProducts();
      const std::vector<float> all = Run(**backend, 0, kRows, add);
      EXPECT_GT(FakeCublasLtProducts(), before);
      ExpectNmse(all, Want(add), 1e-12, add ? "added" : "set");
      ExpectSame(Run(**backend, 7, 1, add),
                 {all.begin() + 7 * kOut, all.begin() + 8 * kOut}, "alone");
    }
  }
}

TEST_F(FakeCublasLtProductsTest, OurKernelMultipliesWhereItDoesNot) {
  Offer(kFakeChangesWithRows);
  const auto own = Make(MatMulLibrary::kOwn), best = Make(MatMulLibrary::kAuto),
             library = Make(MatMulLibrary::kCublasLt);
  ASSERT_TRUE(own.ok() && best.ok() && library.ok());
  EXPECT_EQ(KernelOf(**own), "matmul.bf16:own-sm_90");
  const std::vector<float> want = Run(**own, 0, kRows, false);
  ExpectNmse(want, Want(false), 1e-12, "own");
  ExpectSame(Run(**best, 0, kRows, false), want, "auto");
  EXPECT_EQ(Pack(**own).value()->choice(), (MatMulChoice{"own-sm_90", ""}));
  const MatMulChoice choice = Pack(**best).value()->choice();
  EXPECT_EQ(choice.kernel, "own-sm_90");
  EXPECT_THAT(choice.passed_over, HasSubstr("bytes differ"));
  const absl::Status refused = Pack(**library).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("cuBLASLt cannot multiply a weight (48, 64): "));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("bytes differ"));
}

TEST_F(FakeCublasLtProductsTest, WithoutTheLibrary) {
  const std::string none = "/none/libcublasLt.so.13";
  EXPECT_EQ(Make(MatMulLibrary::kCublasLt, none).status().code(),
            absl::StatusCode::kUnavailable);
  const auto best = Make(MatMulLibrary::kAuto, none);
  ASSERT_TRUE(best.ok()) << best.status();
  EXPECT_EQ(KernelOf(**best), "matmul.bf16:own-sm_90");
  ExpectNmse(Run(**best, 0, kRows, true), Want(true), 1e-12, "own");
}

}  // namespace
}  // namespace qk::testing
