// Tests the codes of CUDA's runtime, and the fake runtime that other tests
// stand on.
#include "absl/strings/match.h"
#include "engine/cuda/kernels.h"
#include "tests/cuda_on_cpu/fake_runtime.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

using cuda_on_cpu::CallCounts;
using cuda_on_cpu::FakeRuntime;

constexpr int kOutOfMemory = 2, kInvalidValue = 1, kIllegalAddress = 700;

TEST(RuntimeStatusTest, ACodeSaysWhatToDo) {
  EXPECT_TRUE(cuda::StatusOf(0, "f", "").ok());
  EXPECT_EQ(cuda::StatusOf(kOutOfMemory, "f", "w"),
            absl::ResourceExhaustedError("f: w (CUDA error 2)"));
  EXPECT_EQ(cuda::StatusOf(kInvalidValue, "f", "w").code(),
            absl::StatusCode::kInternal);
  for (int code : {kIllegalAddress, 214, 719, 999}) {
    EXPECT_TRUE(cuda::IsLost(cuda::StatusOf(code, "f", "w"))) << code;
  }
  EXPECT_FALSE(cuda::IsLost(cuda::StatusOf(kOutOfMemory, "f", "w")));
}

// Doubles a number on the "device".
absl::StatusOr<float> Twice(FakeRuntime& runtime, float x) {
  const auto stream = runtime.MakeStream();
  if (!stream.ok()) return stream.status();
  const auto data = runtime.Allocate(4, *stream);
  absl::Status status = data.status();
  if (data.ok()) {
    auto* number = static_cast<float*>(*data);
    status.Update(runtime.CopyToDevice(number, &x, 4, *stream));
    cuda::Add(number, number, 1, *stream);
    status.Update(runtime.LaunchStatus());
    status.Update(runtime.CopyToHost(&x, number, 4, *stream));
    status.Update(runtime.WaitFor(*stream));
    status.Update(runtime.Free(number, *stream));
  }
  status.Update(runtime.DestroyStream(*stream));
  if (!status.ok()) return status;
  return x;
}

TEST(FakeRuntimeTest, CountsCalls) {
  FakeRuntime runtime;
  const absl::StatusOr<float> four = Twice(runtime, 2.0f);
  ASSERT_TRUE(four.ok()) << four.status();
  EXPECT_EQ(*four, 4.0f);
  CallCounts want;
  want.launches = want.to_device = want.to_host = 1;
  want.bytes_to_device = 4;
  want.allocations = want.waits = 1;
  want.all = 8;
  EXPECT_EQ(runtime.counts(), want);
  EXPECT_EQ(runtime.live_objects(), 0);
  runtime.Clear();
  EXPECT_EQ(runtime.counts(), CallCounts());
}

TEST(FakeRuntimeTest, EveryCallCanFailOnce) {
  int failures = 0;
  for (int k = 0; k < 8; ++k) {
    FakeRuntime runtime;
    runtime.FailCall(k, kOutOfMemory);
    const absl::StatusOr<float> got = Twice(runtime, 2.0f);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted) << k;
    EXPECT_TRUE(runtime.failed());
    EXPECT_EQ(runtime.live_objects(), 0) << k;
    EXPECT_TRUE(Twice(runtime, 2.0f).ok()) << k;  // the next one is right
    failures += runtime.failed();
  }
  EXPECT_EQ(failures, 8);
}

TEST(FakeRuntimeTest, ALostDeviceStaysLost) {
  FakeRuntime runtime;
  runtime.FailCall(3, kIllegalAddress);
  EXPECT_TRUE(cuda::IsLost(Twice(runtime, 2.0f).status()));
  EXPECT_TRUE(cuda::IsLost(Twice(runtime, 2.0f).status()));
  EXPECT_EQ(runtime.live_objects(), 0);
}

TEST(FakeRuntimeDeathTest, NoticesWhatADeviceWouldPunish) {
  FakeRuntime runtime;
  void* data = runtime.Allocate(8, nullptr).value();
  float x = 0;
  EXPECT_DEATH(
      (void)runtime.CopyToDevice(static_cast<char*>(data) + 6, &x, 4, nullptr),
      "check failed");
  EXPECT_DEATH((void)runtime.CopyToHost(&x, &x, 4, nullptr), "check failed");
  ASSERT_TRUE(runtime.Free(data, nullptr).ok());
  EXPECT_DEATH((void)runtime.Free(data, nullptr), "check failed");
}

}  // namespace
}  // namespace qk::testing
