// cuBLASLt's wrapper and its probe, with a fake library.
#include "engine/cuda/cublaslt.h"

#include <dlfcn.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/cuda/cublaslt_probe.h"
#include "gmock/gmock.h"
#include "tests/cuda_on_cpu/fake_runtime.h"
#include "tests/engine/cuda/fake_cublaslt.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

using cuda::CublasLt;
using cuda::CublasLtPlan;
using cuda::CublasLtVerdict;
using cuda_on_cpu::FakeRuntime;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kWorkspace = 1 << 20;

void Offer(const std::vector<FakeAlgorithm>& list) {
  FakeCublasLtOffer(list.data(), static_cast<int>(list.size()));
}

class FakeCublasLtTest : public ::testing::Test {
 protected:
  FakeCublasLtTest() {
    Offer({kFakeRight});
    FakeCublasLtFail(nullptr, 0);
  }
  ~FakeCublasLtTest() override { EXPECT_EQ(FakeCublasLtLive(), 0); }

  static std::unique_ptr<CublasLt> OpenFake() {
    auto opened = CublasLt::Open(QK_FAKE_CUBLASLT);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return std::move(opened).value();
  }
};

TEST_F(FakeCublasLtTest, ALibraryThatIsMissingIsUnavailable) {
  const absl::Status status =
      CublasLt::Open("/none/libcublasLt.so.13").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(),
              HasSubstr("cannot open /none/libcublasLt.so.13 ("));
}

TEST_F(FakeCublasLtTest, AFunctionThatIsMissingIsUnavailable) {
  const absl::Status status =
      CublasLt::Open(QK_FAKE_CUBLASLT_WITHOUT_CHECK).status();
  EXPECT_EQ(status, absl::UnavailableError(absl::StrCat(
                        QK_FAKE_CUBLASLT_WITHOUT_CHECK,
                        " has no function cublasLtMatmulAlgoCheck")));
  // It stays in the process all the same.
  EXPECT_NE(dlopen(QK_FAKE_CUBLASLT_WITHOUT_CHECK, RTLD_NOW | RTLD_NOLOAD),
            nullptr);
}

TEST_F(FakeCublasLtTest, ALibraryThatDoesNotStartIsUnavailable) {
  for (const char* function : {"cublasLtCreate", "cublasLtMatmulDescCreate",
                               "cublasLtMatmulDescSetAttribute"}) {
    FakeCublasLtFail(function, 7);
    EXPECT_EQ(CublasLt::Open(QK_FAKE_CUBLASLT).status(),
              absl::UnavailableError(
                  absl::StrCat(function, ": CUBLAS_STATUS_INVALID_VALUE (7)")));
    EXPECT_EQ(FakeCublasLtLive(), 0);
  }
}

TEST_F(FakeCublasLtTest, HasAVersion) {
  EXPECT_EQ(OpenFake()->version(), "13.2.5");
}

TEST_F(FakeCublasLtTest, MultipliesAndAdds) {
  const auto library = OpenFake();
  Random random(1);
  const int out = 12, in = 24;
  const auto plans = library->Candidates(out, in, kWorkspace);
  ASSERT_TRUE(plans.ok()) << plans.status();
  ASSERT_THAT(*plans, SizeIs(1));
  const std::vector<uint16_t> w = ToBf16(random.Normal(out * in));
  const Array<uint16_t> device_w(w);
  const Array<uint8_t> workspace(kWorkspace);
  for (int rows : {1, 7, 33}) {
    const std::vector<uint16_t> x = ToBf16(random.Normal(rows * in));
    const Array<uint16_t> device_x(x);
    const std::vector<float> before = random.Normal(rows * out);
    for (bool add : {false, true}) {
      // Without `add`, what was there (NaN) is not read.
      const Array<float> y =
          add ? Array<float>(before) : Array<float>(before.size());
      const absl::Status status = library->Multiply(
          plans->front(), device_x.data(), rows, device_w.data(), add, y.data(),
          workspace.data(), kWorkspace, kStream);
      ASSERT_TRUE(status.ok()) << status;
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        for (int o = 0; o < out; ++o) {
          double sum = add ? before[r * out + o] : 0.0;
          for (int k = 0; k < in; ++k) {
            sum += double{FromBF16(x[r * in + k])} * FromBF16(w[o * in + k]);
          }
          want.push_back(sum);
        }
      }
      ExpectNmse(y.Read(), want, 4 * kEpsilon * kEpsilon * (in + 16),
                 absl::StrCat(rows, " rows, add ", add));
    }
  }
  const absl::Status none =
      library->Multiply(plans->front(), nullptr, 0, device_w.data(), false,
                        nullptr, workspace.data(), kWorkspace, kStream);
  EXPECT_TRUE(none.ok()) << none;
}

TEST_F(FakeCublasLtTest, CandidatesNeitherSplitKNorDoWithoutTensorCores) {
  const auto library = OpenFake();
  Offer({kFakeSplitsK, kFakeReduces, kFakeNoTensorCores, kFakeHalfSums,
         kFakeRight, kFakeFailsCheck, kFakeWantsMemory, kFakeNoResult,
         kFakeTellsNothing, kFakeLosesTail});
  const auto plans = library->Candidates(8, 16, kWorkspace);
  ASSERT_TRUE(plans.ok()) << plans.status();
  std::vector<std::string> names;
  for (const CublasLtPlan& plan : *plans) {
    names.push_back(plan.name);
    EXPECT_EQ(plan.out_features, 8);
    EXPECT_EQ(plan.in, 16);
    EXPECT_EQ(plan.workspace_bytes, 2048);
  }
  EXPECT_THAT(names, ElementsAre("algorithm 4, tile 20, stages 8",
                                 "algorithm 9, tile 20, stages 8"));
  for (const auto& [out, in] :
       std::vector<std::pair<int, int>>{{6, 16}, {8, 12}, {0, 8}, {4, -8}}) {
    EXPECT_EQ(library->Candidates(out, in, kWorkspace).status().code(),
              absl::StatusCode::kInvalidArgument)
        << out << " x " << in;
  }
}

TEST_F(FakeCublasLtTest, StatusesSayWhatToDo) {
  const auto library = OpenFake();
  const auto plans = library->Candidates(8, 16, kWorkspace);
  ASSERT_THAT(*plans, SizeIs(1));
  const CublasLtPlan& plan = plans->front();
  const auto multiply = [&] {
    return library->Multiply(plan, nullptr, 1, nullptr, false, nullptr, nullptr,
                             0, kStream);
  };
  for (const auto& [status, code] :
       std::vector<std::pair<int, absl::StatusCode>>{
           {3, absl::StatusCode::kResourceExhausted},
           {7, absl::StatusCode::kUnimplemented},
           {8, absl::StatusCode::kUnimplemented},
           {15, absl::StatusCode::kUnimplemented},
           {13, absl::StatusCode::kInternal}}) {
    FakeCublasLtFail("cublasLtMatmul", status);
    EXPECT_EQ(multiply().code(), code) << status;
    FakeCublasLtFail("cublasLtMatrixLayoutCreate", status);
    EXPECT_EQ(multiply().code(), code) << status;
  }
}

class FakeCublasLtProbeTest : public FakeCublasLtTest {
 protected:
  void SetUp() override { library_ = OpenFake(); }
  void TearDown() override {
    EXPECT_EQ(runtime_.live_objects(), live_);
    library_.reset();
  }

  const void* Weight(int out, int in, float first = 0.5f) {
    std::vector<float> w = Random(3).Normal(static_cast<size_t>(out) * in);
    w[0] = first;
    const std::vector<uint16_t> bits = ToBf16(w);
    void* data = runtime_.Allocate(2 * out * in, kStream).value();
    EXPECT_TRUE(
        runtime_.CopyToDevice(data, bits.data(), 2 * out * in, kStream).ok());
    ++live_;
    return data;
  }
  absl::StatusOr<CublasLtVerdict> Probe(const void* w, int out, int in) {
    return cuda::ProbeCublasLt(runtime_, *library_, w, out, in, kWorkspace,
                               kStream);
  }
  // Probes with one faulty algorithm before a right one; returns what is said
  // of it.
  std::string Refusal(FakeAlgorithm kind) {
    Offer({kind, kFakeRight});
    const auto verdict = Probe(Weight(20, 72), 20, 72);
    EXPECT_TRUE(verdict.ok()) << verdict.status();
    if (!verdict.ok()) return "";
    EXPECT_TRUE(verdict->plan.has_value());
    if (verdict->plan.has_value()) {
      EXPECT_EQ(verdict->plan->name, "algorithm 1, tile 20, stages 8");
    }
    EXPECT_THAT(verdict->refused, SizeIs(1));
    return verdict->refused.empty() ? "" : verdict->refused[0];
  }

  FakeRuntime runtime_;
  std::unique_ptr<CublasLt> library_;
  int64_t live_ = 0;  // pieces of memory that are the test's
};

TEST_F(FakeCublasLtProbeTest, TakesARightAlgorithm) {
  for (const auto& [out, in] :
       std::vector<std::pair<int, int>>{{4, 8}, {20, 72}, {64, 1032}}) {
    if (kSanitized && in > 1000) continue;
    const auto verdict = Probe(Weight(out, in), out, in);
    ASSERT_TRUE(verdict.ok()) << verdict.status();
    ASSERT_TRUE(verdict->plan.has_value()) << verdict->refused[0];
    EXPECT_EQ(verdict->plan->in, in);
    EXPECT_EQ(verdict->plan->out_features, out);
    EXPECT_THAT(verdict->refused, IsEmpty());
  }
}

TEST_F(FakeCublasLtProbeTest, RefusesBytesThatChange) {
  const std::string rows = Refusal(kFakeChangesWithRows);
  EXPECT_THAT(rows, HasSubstr("algorithm 0, tile 20, stages 8: at 1 row, "));
  EXPECT_THAT(rows, HasSubstr(" of 80 bytes differ from those at 2048 rows, "
                              "first in row 0"));
  // The last of 2,048 rows is the first that differs.
  const std::string position = Refusal(kFakeChangesWithPosition);
  EXPECT_THAT(position, HasSubstr(": at 2048 rows, "));
  EXPECT_THAT(position, HasSubstr("first in row 2047"));
  EXPECT_THAT(Refusal(kFakeChangesWithPlace), HasSubstr(": at 2048 rows, "));
}

TEST_F(FakeCublasLtProbeTest, RefusesWrongValues) {
  EXPECT_THAT(Refusal(kFakeLosesTail), HasSubstr(", and MatMul's is "));
  EXPECT_THAT(Refusal(kFakeGivesNaN), HasSubstr("value 0 of row 0 is nan"));
  EXPECT_THAT(Refusal(kFakeIgnoresAdd),
              HasSubstr("at 2048 rows, added twice, "));
  EXPECT_THAT(Refusal(kFakeFailsRun),
              HasSubstr("at 33 rows, cublasLtMatmul: "
                        "CUBLAS_STATUS_INVALID_VALUE (7)"));
}

TEST_F(FakeCublasLtProbeTest, NoticesOneKOfThousands) {
  Offer({kFakeLosesTail});
  const int in = kSanitized ? 520 : 4096;
  const auto verdict = Probe(Weight(8, in), 8, in);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_FALSE(verdict->plan.has_value());
  EXPECT_THAT(verdict->refused, ElementsAre(HasSubstr("MatMul's is")));
}

TEST_F(FakeCublasLtProbeTest, AWeightThatIsNotFinitePassesNothing) {
  const auto verdict = Probe(Weight(8, 16, kNaN), 8, 16);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_FALSE(verdict->plan.has_value());
  EXPECT_THAT(verdict->refused, SizeIs(1));
}

TEST_F(FakeCublasLtProbeTest, SaysWhyNoneIsTaken) {
  Offer({kFakeChangesWithRows, kFakeSplitsK, kFakeLosesTail});
  const void* w = Weight(8, 72);
  const auto verdict = Probe(w, 8, 72);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_FALSE(verdict->plan.has_value());
  EXPECT_THAT(verdict->refused,
              ElementsAre(HasSubstr("algorithm 0, tile 20, stages 8: at 1 row"),
                          HasSubstr("algorithm 2, tile 20, stages 8: at 2048 "
                                    "rows, value ")));
  const std::string none =
      "cuBLASLt 13.2.5 has no algorithm for a weight of 8 x 72 that does not "
      "split K";
  Offer({kFakeSplitsK});
  EXPECT_THAT(Probe(w, 8, 72)->refused, ElementsAre(none));
  FakeCublasLtFail("cublasLtMatmulAlgoGetHeuristic", 15);
  EXPECT_THAT(Probe(w, 8, 72)->refused, ElementsAre(none));
  EXPECT_EQ(Probe(w, 8, 70).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(FakeCublasLtProbeTest, AnErrorThatIsNotTheAlgorithmsEndsIt) {
  const void* w = Weight(8, 16);
  for (const char* function :
       {"cublasLtMatmul", "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmulPreferenceSetAttribute"}) {
    FakeCublasLtFail(function, 3);
    EXPECT_EQ(
        Probe(w, 8, 16).status(),
        absl::ResourceExhaustedError(absl::StrCat(function, ": STATUS (3)")));
    EXPECT_EQ(runtime_.live_objects(), live_);
  }
  FakeCublasLtFail(nullptr, 0);
  EXPECT_TRUE(Probe(w, 8, 16)->plan.has_value());
}

TEST_F(FakeCublasLtProbeTest, EveryCallOfTheRuntimeCanFail) {
  const void* w = Weight(4, 8);
  constexpr int kOutOfMemory = 2, kIllegalAddress = 700;
  int64_t calls = 0;
  for (;; ++calls) {
    runtime_.FailCall(calls, kOutOfMemory);
    const auto verdict = Probe(w, 4, 8);
    EXPECT_EQ(runtime_.live_objects(), live_) << calls;
    if (!runtime_.failed()) {
      EXPECT_TRUE(verdict.ok()) << verdict.status();
      break;
    }
    EXPECT_EQ(verdict.status().code(), absl::StatusCode::kResourceExhausted)
        << calls;
  }
  EXPECT_GT(calls, 70);
  runtime_.FailCall(calls / 2, kIllegalAddress);
  EXPECT_TRUE(cuda::IsLost(Probe(w, 4, 8).status()));
  EXPECT_EQ(runtime_.live_objects(), live_);
}

}  // namespace
}  // namespace qk::testing
