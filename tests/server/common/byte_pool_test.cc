#include "server/common/byte_pool.h"

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

class BytePoolTest : public ::testing::Test {
 protected:
  bool Takes(const std::string& user, int64_t bytes,
             const void* waiter = nullptr) {
    auto lease = pool_.Take(user, bytes, waiter);
    if (lease.ok()) leases_.push_back(*std::move(lease));
    return lease.ok();
  }

  BytePool pool_{"stream buffers", 1024};
  std::vector<ByteLease> leases_;
};

TEST_F(BytePoolTest, RefusesWhatIsNotThere) {
  ASSERT_TRUE(Takes("a", 1000));
  EXPECT_EQ(pool_.Take("b", 100).status(),
            absl::ResourceExhaustedError("the request may need 100 B of stream "
                                         "buffers, 24 B of 1 KiB are free"));
  EXPECT_EQ(pool_.Take("b", 2048).status(),
            absl::FailedPreconditionError(
                "the request may need 2 KiB of stream buffers, limit 1 KiB; "
                "reduce layers/heads/positions"));
  leases_.clear();
  EXPECT_EQ(pool_.taken(), 0);
  EXPECT_TRUE(Takes("b", 1024));
}

TEST_F(BytePoolTest, ALeaseGoesBackInParts) {
  ASSERT_TRUE(Takes("a", 600));
  leases_[0].Split(200);
  EXPECT_EQ(pool_.taken(), 400);
  leases_[0].Split(5000);  // at most what is left
  EXPECT_EQ(pool_.taken(), 0);
}

TEST_F(BytePoolTest, R25_OneUserLeavesRoomForTheNext) {
  while (Takes("greedy", 10)) {
  }
  EXPECT_LE(pool_.taken(), 768);
  EXPECT_GE(pool_.taken(), 758);
  EXPECT_TRUE(Takes("b", 85));  // a third of the fourth that is left
  EXPECT_TRUE(Takes("c", 64));
  EXPECT_FALSE(Takes("d", 64));
  EXPECT_TRUE(Takes("d", 51));
}

// Everything may go to one user who asks for it while nobody holds anything.
TEST_F(BytePoolTest, R25_WhatIsIdleMayBeBorrowed) {
  EXPECT_TRUE(Takes("a", 1024));
  EXPECT_FALSE(Takes("b", 1));
}

TEST_F(BytePoolTest, R25_WhoWaitsIsNotOvertakenForever) {
  int calls = 0;
  pool_.SetOnFree([&] { ++calls; });
  const int waiter = 0, later = 0;
  ASSERT_TRUE(Takes("a", 300));
  ASSERT_TRUE(Takes("a", 300));
  EXPECT_FALSE(Takes("b", 500, &waiter));
  // `a` may not borrow any more, and b's own later request does not overtake.
  EXPECT_FALSE(Takes("a", 100));
  EXPECT_FALSE(Takes("b", 10, &later));
  leases_.pop_back();
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(Takes("b", 500, &waiter));
  leases_.pop_back();
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(Takes("b", 500, &waiter));
  EXPECT_TRUE(Takes("b", 10, &later));
  EXPECT_TRUE(Takes("a", 100));
}

TEST_F(BytePoolTest, R25_WhoStopsWaitingHoldsNobody) {
  int calls = 0;
  pool_.SetOnFree([&] { ++calls; });
  const int first = 0, second = 0;
  ASSERT_TRUE(Takes("a", 600));
  EXPECT_FALSE(Takes("b", 500, &first));
  EXPECT_FALSE(Takes("b", 100, &second));
  pool_.StopWaiting(&first);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(Takes("b", 100, &second));
  pool_.StopWaiting(&second);  // waits for nothing
  EXPECT_EQ(calls, 1);
}

TEST(BytePoolThreadsTest, NeverOverTheLimit) {
  BytePool pool("bytes", 100);
  std::atomic<int64_t> most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back(
        [&, user = std::string(1, static_cast<char>('a' + t))] {
          for (int i = 0; i < 1000; ++i) {
            auto lease = pool.Take(user, 30);
            const int64_t taken = pool.taken();
            if (taken > most) most = taken;
          }
        });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 100);
  EXPECT_GE(most, 30);
  EXPECT_EQ(pool.taken(), 0);
}

}  // namespace
}  // namespace qk
