// NVIDIA's own libraries on a device, if there are any; without, they say so.
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/half.h"
#include "engine/cuda/cublaslt_probe.h"
#include "engine/cuda/nvml.h"
#include "gtest/gtest.h"

namespace qk::testing {
namespace {

using cuda::CublasLt;
using cuda::CublasLtPlan;

// A number in [-1, 1) for each i.
uint16_t Noise(int64_t i) {
  return RoundToBF16(static_cast<float>(i * 7919 % 2017) / 1008.5f - 1.0f);
}

// Rows of a product with `rows` rows of x, on the host.
std::vector<float> Product(cuda::Runtime& runtime, CublasLt& library,
                           const CublasLtPlan& plan, const void* x, int rows,
                           const void* w, cuda::Stream stream) {
  std::vector<float> out(int64_t{rows} * plan.out_features);
  const int64_t bytes = static_cast<int64_t>(out.size() * sizeof(float));
  auto* data = static_cast<float*>(runtime.Allocate(bytes, stream).value());
  void* workspace = runtime.Allocate(32 << 20, stream).value();
  const absl::Status status = library.Multiply(plan, x, rows, w, false, data,
                                               workspace, 32 << 20, stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(runtime.CopyToHost(out.data(), data, bytes, stream).ok());
  EXPECT_TRUE(runtime.WaitFor(stream).ok());
  EXPECT_TRUE(runtime.Free(data, stream).ok());
  EXPECT_TRUE(runtime.Free(workspace, stream).ok());
  return out;
}

TEST(CublasLtDeviceTest, AnAlgorithmThatPassesKeepsBytesAtOtherRowCounts) {
  const auto opened = cuda::OpenRuntime({});
  if (opened.ok()) {
    ASSERT_TRUE((*opened)->Use().ok());
  }
  const auto library = CublasLt::Open();
  if (!library.ok()) {
    EXPECT_EQ(library.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(absl::StrContains(library.status().message(), "cublasLt"))
        << library.status();
    GTEST_SKIP() << library.status();
  }
  if (!opened.ok()) GTEST_SKIP() << opened.status();
  cuda::Runtime& runtime = **opened;
  const cuda::Stream stream = runtime.MakeStream().value();
  const int rows = 3000, out = 576, in = 1536;
  std::vector<uint16_t> host(int64_t{rows} * in);
  for (size_t i = 0; i < host.size(); ++i) host[i] = Noise(i);
  void* x = runtime.Allocate(host.size() * 2, stream).value();
  ASSERT_TRUE(
      runtime.CopyToDevice(x, host.data(), host.size() * 2, stream).ok());
  const auto verdict =
      cuda::ProbeCublasLt(runtime, **library, x, out, in, 32 << 20, stream);
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  for (const std::string& reason : verdict->refused) {
    std::printf("refused: %s\n", reason.c_str());
  }
  if (verdict->plan.has_value()) {
    std::printf("cuBLASLt %s: %s\n", (*library)->version().c_str(),
                verdict->plan->name.c_str());
    const std::vector<float> all =
        Product(runtime, **library, *verdict->plan, x, rows, x, stream);
    for (int some : {3, 5, 17, 31, 65, 129, 255, 1000, 2047}) {
      const std::vector<float> got =
          Product(runtime, **library, *verdict->plan, x, some, x, stream);
      EXPECT_EQ(std::memcmp(got.data(), all.data(), got.size() * 4), 0)
          << some << " rows";
    }
  }
  EXPECT_TRUE(runtime.Free(x, stream).ok());
  EXPECT_TRUE(runtime.DestroyStream(stream).ok());
}

TEST(NvmlDeviceTest, ReadsOrSaysWhyNot) {
  const auto opened = cuda::OpenRuntime({});
  const std::string uuid = opened.ok() ? (*opened)->facts().uuid : "GPU-none";
  const auto nvml = cuda::Nvml::Open(uuid);
  if (!nvml.ok()) {
    EXPECT_TRUE(absl::IsUnavailable(nvml.status()) ||
                absl::IsNotFound(nvml.status()))
        << nvml.status();
    GTEST_SKIP() << nvml.status();
  }
  const auto reading = (*nvml)->Read();
  ASSERT_TRUE(reading.ok()) << reading.status();
  if (reading->memory_total_bytes.has_value()) {
    EXPECT_NEAR(static_cast<double>(*reading->memory_total_bytes),
                static_cast<double>((*opened)->facts().memory_bytes),
                0.1 * static_cast<double>(*reading->memory_total_bytes));
    EXPECT_LE(*reading->memory_used_bytes, *reading->memory_total_bytes);
  }
  if (reading->utilization.has_value()) {
    EXPECT_GE(*reading->utilization, 0.0);
    EXPECT_LE(*reading->utilization, 1.0);
  }
  if (reading->temperature_celsius.has_value()) {
    EXPECT_GT(*reading->temperature_celsius, 0.0);
    EXPECT_LT(*reading->temperature_celsius, 120.0);
  }
}

}  // namespace
}  // namespace qk::testing
