// Results of hooks wait side by side for one copy; when their memory is full
// they go to the host before there is room for more.
#include "engine/hooks/hook_ops.h"

#include <cstring>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/deferred_backend.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {
namespace {

class HookOpsTest : public ::testing::Test {
 protected:
  HookOpsTest() : backend_(MakeTestBackend(1)) {
    std::vector<uint8_t> values(kValues);
    for (int i = 0; i < kValues; ++i) values[i] = static_cast<uint8_t>(i);
    backend_.Upload(from_.as<void>(), values.data(), kValues);
  }

  // Copies values [at, at + bytes) to a result, by way of scratch memory.
  StagedResult Copy(HookOps& ops, int at, int64_t bytes) {
    const HookOps::Room room = ops.Take(bytes, bytes);
    backend_.CopyOnDevice(
        {CopyJob{room.scratch, from_.as<uint8_t>() + at, bytes}});
    ops.Add(CopyJob{room.result, room.scratch, bytes});
    return room.staged;
  }

  static constexpr int kValues = 250;
  DeferredBackend backend_;
  const DeviceBuffer from_ = backend_.Allocate(kValues).value();
  const DeviceBuffer memory_ = backend_.Allocate(4 * 64).value();
};

TEST_F(HookOpsTest, ResultsOutliveTheirMemory) {
  HookOps ops(&backend_, memory_);
  std::vector<StagedResult> results;
  // Each takes a quarter of the memory for its result, and one for scratch, so
  // that two fit.
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(ops.Fits(64, 64), i == 0 || i % 2 == 1) << i;
    results.push_back(Copy(ops, 30 * i, 1 + 9 * i));
  }
  results.push_back(Copy(ops, 3, 128));  // all of it
  EXPECT_FALSE(ops.Fits(1));
  ops.Fetch();
  EXPECT_TRUE(ops.Fits(256));
  for (const StagedResult& result : results) EXPECT_FALSE(result.here());
  ASSERT_TRUE(backend_.Synchronize().ok());
  for (size_t i = 0; i < results.size(); ++i) {
    ASSERT_TRUE(results[i].here());
    const auto bytes = results[i].bytes();
    ASSERT_EQ(bytes.size(), i < 7 ? 1 + 9 * i : 128);
    for (size_t j = 0; j < bytes.size(); ++j) {
      EXPECT_EQ(bytes[j], (i < 7 ? 30 * i : 3) + j) << i;
    }
  }
  EXPECT_FALSE(StagedResult().here());
}

TEST_F(HookOpsTest, WhatNobodyFetchesIsNeverHere) {
  HookOps ops(&backend_, memory_);
  const StagedResult result = Copy(ops, 0, 5);
  ops.Run();
  ASSERT_TRUE(backend_.Synchronize().ok());
  EXPECT_FALSE(result.here());
}

TEST_F(HookOpsTest, ARequestLargerThanTheMemoryIsABug) {
  HookOps ops(&backend_, memory_);
  EXPECT_DEATH(ops.Take(257), "Fits");
}

}  // namespace
}  // namespace qk::testing
