// QK_TEST_BACKEND chooses the suite's backend; the suite never silently runs on
// another.
#include "tests/engine/test_backend.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk::testing {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

// Sets QK_TEST_BACKEND to `name` for its own lifetime.
class Environment {
 public:
  explicit Environment(const char* name) {
    const char* before = std::getenv(kVariable);
    if (before != nullptr) before_ = before;
    setenv(kVariable, name, 1);
  }
  ~Environment() {
    if (before_.empty()) {
      unsetenv(kVariable);
    } else {
      setenv(kVariable, before_.c_str(), 1);
    }
  }

 private:
  static constexpr const char* kVariable = "QK_TEST_BACKEND";
  std::string before_;
};

std::string F32Kernel(const BackendInfo& info) {
  for (const std::string& id : info.kernel_ids) {
    if (id.starts_with("matmul.f32:")) return id;
  }
  return "";
}

TEST(TestBackendTest, NamesTheKernelAndTheThreads) {
  const Environment environment("cpu-onednn:3");
  const auto backend = MakeTestBackend();
  EXPECT_EQ(backend->info().threads, 3);
  EXPECT_THAT(F32Kernel(backend->info()), HasSubstr(":onednn-"));
  EXPECT_EQ(MakeTestBackend(2)->info().threads, 2);
  ASSERT_EQ(TestKernels().size(), 1u);
  EXPECT_EQ(TestKernels()[0].name, "cpu-onednn");
}

TEST(TestBackendTest, TheCpuHasItsOwnKernelsAndOneDnn) {
  const Environment environment("cpu");
  const std::vector<TestBackend> kernels = TestKernels();
  ASSERT_EQ(kernels.size(), cpu::PairKernels().size() + 2);
  EXPECT_EQ(kernels.front().name, "cpu-fma");
  EXPECT_EQ(kernels.back().name, "cpu-onednn");
  for (const TestBackend& kernel : kernels) {
    EXPECT_THAT(F32Kernel(kernel.make(1)->info()),
                HasSubstr(kernel.name == "cpu-onednn" ? ":onednn-" : ":own-"));
  }
}

TEST(TestBackendTest, DeferredResultsArriveWhenSomebodyWaits) {
  const Environment environment("deferred");
  const auto backend = MakeTestBackend(1);
  const DeviceBuffer memory = backend->Allocate(4).value();
  const int32_t seven = 7, eight = 8;
  backend->Upload(memory.as<void>(), &seven, 4);
  const Arrival first = backend->Fetch(memory.as<void>(), 4);
  backend->Upload(memory.as<void>(), &eight, 4);
  EXPECT_FALSE(first.here());
  EXPECT_DEATH(first.bytes(), "here");
  const std::unique_ptr<Moment> moment = backend->Mark();
  const Arrival later = backend->Fetch(memory.as<void>(), 4);
  EXPECT_FALSE(moment->reached());
  moment->Wait();
  EXPECT_TRUE(moment->reached());
  EXPECT_FALSE(later.here());
  ASSERT_TRUE(first.here());
  EXPECT_EQ(first.as<int32_t>()[0], 7);  // as it was when it was fetched
  ASSERT_TRUE(backend->Synchronize().ok());
  EXPECT_EQ(later.as<int32_t>()[0], 8);
  EXPECT_FALSE(Arrival().here());
}

TEST(TestBackendTest, AnUnknownNameEndsTheProcess) {
  for (const char* name : {"", "gpu", "cpu-", "cpu:", "cpu:0", "cpu:-1",
                           "cpu:two", "cpu:1:2", ":2"}) {
    const Environment environment(name);
    EXPECT_EXIT(MakeTestBackend(), ExitedWithCode(1),
                "QK_TEST_BACKEND: must be .*cpu, cpu-fma, .*cpu-onednn, "
                "deferred, emulated-cuda; got")
        << name;
    EXPECT_EXIT(TestKernels(), ExitedWithCode(1), "QK_TEST_BACKEND") << name;
  }
}

}  // namespace
}  // namespace qk::testing
