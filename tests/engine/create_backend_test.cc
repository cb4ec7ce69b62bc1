#include "engine/create_backend.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

using ::testing::HasSubstr;

TEST(CreateBackendTest, CpuAndAutoAreTheCpu) {
  for (const char* name : {"cpu", "auto"}) {
    const auto backend = CreateBackend({.name = name, .threads = 3});
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ((*backend)->info().name, "cpu");
    EXPECT_EQ((*backend)->info().threads, 3);
  }
}

TEST(CreateBackendTest, SaysWhatTheBuildHas) {
  const absl::Status status =
      CreateBackend({.name = "cuda", .threads = 0}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "backend: 'cuda' is not in this build, which has: cpu");
  EXPECT_EQ(CheckBackendName("cuda"), status);
}

TEST(CreateBackendTest, AnUnknownNameIsShownSafely) {
  for (const char* name : {"", "gpu", "CPU", "cpu "}) {
    const absl::Status status =
        CreateBackend({.name = name, .threads = 0}).status();
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
