// NVML's wrapper, with a fake library.
#include "engine/cuda/nvml.h"

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/cuda/fake_nvml.h"

namespace qk::testing {
namespace {

using cuda::Nvml;
using qk::DeviceReading;
using ::testing::HasSubstr;

constexpr const char* kUuid = "GPU-fake";

class FakeNvmlTest : public ::testing::Test {
 protected:
  FakeNvmlTest() { FakeNvmlFail(nullptr, 0); }
  ~FakeNvmlTest() override { EXPECT_EQ(FakeNvmlStarted(), 0); }

  static std::unique_ptr<Nvml> OpenFake() {
    auto opened = Nvml::Open(kUuid, QK_FAKE_NVML);
    EXPECT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(FakeNvmlStarted(), 1);
    return std::move(opened).value();
  }
};

TEST_F(FakeNvmlTest, Reads) {
  const auto nvml = OpenFake();
  const auto reading = nvml->Read();
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_EQ(reading->memory_used_bytes, int64_t{10} << 30);
  EXPECT_EQ(reading->memory_total_bytes, int64_t{80} << 30);
  EXPECT_EQ(reading->utilization, 0.42);
  EXPECT_EQ(reading->temperature_celsius, 61.0);
  EXPECT_EQ(reading->power_watts, 345.678);
  EXPECT_EQ(reading->driver_version, "580.65.06");
}

// Which of a reading's values are absent, a bit each.
int Absent(const DeviceReading& r) {
  return (r.memory_used_bytes.has_value() ? 0 : 1) |
         (r.memory_total_bytes.has_value() ? 0 : 2) |
         (r.utilization.has_value() ? 0 : 4) |
         (r.temperature_celsius.has_value() ? 0 : 8) |
         (r.power_watts.has_value() ? 0 : 16) |
         (r.driver_version.has_value() ? 0 : 32);
}

TEST_F(FakeNvmlTest, WhatAGpuDoesNotHaveIsAbsent) {
  const auto nvml = OpenFake();
  const std::vector<std::pair<const char*, int>> calls = {
      {"nvmlDeviceGetMemoryInfo", 1 | 2},
      {"nvmlDeviceGetUtilizationRates", 4},
      {"nvmlDeviceGetTemperature", 8},
      {"nvmlDeviceGetPowerUsage", 16},
      {"nvmlSystemGetDriverVersion", 32}};
  for (const auto& [call, absent] : calls) {
    // Not supported, no permission, function not found, deprecated.
    for (int status : {3, 4, 13, 26}) {
      FakeNvmlFail(call, status);
      const auto reading = nvml->Read();
      ASSERT_TRUE(reading.ok()) << reading.status();
      EXPECT_EQ(Absent(*reading), absent) << call << ", status " << status;
    }
    FakeNvmlFail(call, 15);  // the GPU is lost
    EXPECT_EQ(nvml->Read().status(),
              absl::UnavailableError(absl::StrCat(call, ": Some Error (15)")));
    FakeNvmlFail(call, 999);
    EXPECT_EQ(nvml->Read().status(),
              absl::InternalError(absl::StrCat(call, ": Some Error (999)")));
  }
}

TEST_F(FakeNvmlTest, ThreadsReadAtOnce) {
  const auto nvml = OpenFake();
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  threads.reserve(right.size());
  for (int& count : right) {
    threads.emplace_back([&nvml, &count] {
      for (int i = 0; i < 100; ++i) count += nvml->Read()->utilization == 0.42;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int count : right) EXPECT_EQ(count, 100);
}

TEST_F(FakeNvmlTest, WithoutALibraryOrAFunctionItIsUnavailable) {
  const absl::Status none =
      Nvml::Open(kUuid, "/none/libnvidia-ml.so.1").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(none.message(),
              HasSubstr("cannot open /none/libnvidia-ml.so.1 ("));
  EXPECT_EQ(Nvml::Open(kUuid, QK_FAKE_NVML_WITHOUT_POWER).status(),
            absl::UnavailableError(
                absl::StrCat(QK_FAKE_NVML_WITHOUT_POWER,
                             " has no function nvmlDeviceGetPowerUsage")));
  FakeNvmlFail("nvmlInit_v2", 9);
  EXPECT_EQ(Nvml::Open(kUuid, QK_FAKE_NVML).status(),
            absl::UnavailableError("nvmlInit: Driver Not Loaded (9)"));
}

TEST_F(FakeNvmlTest, AGpuThatItDoesNotKnowIsNotFound) {
  const absl::Status other = Nvml::Open("GPU-other", QK_FAKE_NVML).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(other.message(), HasSubstr("knows no GPU \"GPU-other\""));
  const absl::Status part = Nvml::Open("MIG-fake", QK_FAKE_NVML).status();
  EXPECT_EQ(part.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(part.message(), HasSubstr("\"MIG-fake\" is a part of a GPU"));
  FakeNvmlFail("nvmlDeviceGetHandleByUUID", 999);
  EXPECT_EQ(
      Nvml::Open(kUuid, QK_FAKE_NVML).status(),
      absl::UnavailableError("nvmlDeviceGetHandleByUUID: Some Error (999)"));
}

}  // namespace
}  // namespace qk::testing
