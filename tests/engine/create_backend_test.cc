#include "engine/create_backend.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

using ::testing::HasSubstr;
#ifdef QK_HAS_CUDA
using ::testing::AllOf;
using ::testing::StartsWith;
#endif

TEST(CreateBackendTest, Cpu) {
  const auto created = CreateBackend({.name = "cpu", .threads = 3});
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->backend->info().name, "cpu");
  EXPECT_EQ(created->backend->info().threads, 3);
  EXPECT_EQ(created->passed_over, "");
}

#ifdef QK_HAS_CUDA
// On a machine with a GPU it is taken; on one without, the reason is told.
TEST(CreateBackendTest, AutoTakesTheGpuOrSaysWhyNot) {
  const auto cuda = CreateBackend({.name = "cuda"});
  const auto best = CreateBackend({.name = "auto"});
  ASSERT_TRUE(best.ok()) << best.status();
  if (cuda.ok()) {
    EXPECT_EQ(best->backend->info().name, "cuda");
    EXPECT_EQ(best->passed_over, "");
    EXPECT_EQ(CreateBackend({.device = "no such"}).status().code(),
              absl::StatusCode::kNotFound);
    return;
  }
  EXPECT_EQ(cuda.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(cuda.status().message()),
              AllOf(StartsWith("cuda: "), HasSubstr("NVIDIA")));
  EXPECT_EQ(best->backend->info().name, "cpu");
  EXPECT_EQ(best->passed_over, cuda.status().message());
}
#else
TEST(CreateBackendTest, SaysWhatTheBuildHas) {
  const absl::Status status = CreateBackend({.name = "cuda"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "backend: 'cuda' is not in this build, which has: cpu");
  EXPECT_EQ(CheckBackendName("cuda"), status);
  EXPECT_EQ(CreateBackend({.name = "auto"})->backend->info().name, "cpu");
}
#endif

TEST(CreateBackendTest, AnUnknownNameIsShownSafely) {
  for (const char* name : {"", "gpu", "CPU", "cpu "}) {
    const absl::Status status = CreateBackend({.name = name}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(),
              absl::StrCat("backend: must be one of auto, cpu, cuda; got '",
                           name, "'"));
  }
  EXPECT_THAT(std::string(CheckBackendName("c\npu").message()),
              HasSubstr("got 'c\\npu'"));
  EXPECT_LE(CheckBackendName(std::string(999, 'x')).message().size(), 150u);
}

}  // namespace
}  // namespace qk
