// The real runtime, statically linked with the real kernels. Without a driver
// it says so; with a device, it copies.
#include "absl/strings/match.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/runtime.h"
#include "gtest/gtest.h"

namespace qk::testing {
namespace {

TEST(CudaRuntimeTest, WorksOrSaysWhyNot) {
  const auto devices = cuda::ListDevices();
  auto opened = cuda::OpenRuntime({});
  if (!devices.ok()) {
    EXPECT_EQ(devices.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(absl::StrContains(devices.status().message(), "NVIDIA"))
        << devices.status();
    EXPECT_EQ(opened.status(), devices.status());
    GTEST_SKIP() << "no GPU: " << devices.status();
  }
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(cuda::OpenRuntime({.device = "none"}).status().code(),
            absl::StatusCode::kNotFound);
  cuda::Runtime& runtime = **opened;
  EXPECT_EQ(runtime.facts().uuid, devices->front().uuid);
  const cuda::Stream stream = runtime.MakeStream().value();
  auto* x = static_cast<float*>(runtime.Allocate(4, stream).value());
  float number = 21;
  EXPECT_TRUE(runtime.CopyToDevice(x, &number, 4, stream).ok());
  cuda::Add(x, x, 1, stream);
  EXPECT_TRUE(runtime.LaunchStatus().ok());
  EXPECT_TRUE(runtime.CopyToHost(&number, x, 4, stream).ok());
  EXPECT_TRUE(runtime.WaitFor(stream).ok());
  EXPECT_EQ(number, 42.0f);
  EXPECT_TRUE(runtime.Free(x, stream).ok());
  EXPECT_TRUE(runtime.DestroyStream(stream).ok());
}

}  // namespace
}  // namespace qk::testing
