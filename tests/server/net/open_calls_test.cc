// Tests the limits on what calls cost before they are served, with limits so
// small that each is reached.
#include "server/net/open_calls.h"

#include <chrono>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

class OpenCallsTest : public ::testing::Test {
 protected:
  static CallLimits Small() {
    CallLimits limits;
    limits.calls_per_connection = 4;
    limits.header_bytes_per_call = 100;
    limits.cancels = 3;
    limits.cancels_per_second = 2;
    limits.call_bytes = 6 * CallLimits::kCallBytes;
    limits.few_call_bytes = 2 * CallLimits::kCallBytes;
    limits.message_bytes = 1000;
    limits.few_message_bytes = 300;
    return limits;
  }

  // Begins a call with one byte of headers that cost nothing.
  bool Begin(int call, int connection) {
    calls_.Add(&names_[call], &names_[connection]);
    return calls_.AddHeaders(&names_[call], 0);
  }
  bool Headers(int call, int64_t bytes) {
    return calls_.AddHeaders(&names_[call], bytes);
  }
  bool Message(int call, int64_t bytes) {
    return calls_.AddMessage(&names_[call], bytes);
  }
  bool Cancel(int call, double seconds = 0) {
    return calls_.Cancel(
        &names_[call],
        OpenCalls::Time() +
            std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)));
  }
  void Remove(int call) { calls_.Remove(&names_[call]); }

  OpenCalls calls_{Small()};
  char names_[100'000] = {};
};

TEST_F(OpenCallsTest, S13_CallsOfAConnection) {
  for (int call = 1; call <= 4; ++call) EXPECT_TRUE(Begin(call, 0));
  EXPECT_FALSE(Begin(5, 0));
  EXPECT_TRUE(Begin(6, 1));
  // A call counts until it is freed, whoever cancels it.
  EXPECT_TRUE(Cancel(1));
  EXPECT_FALSE(Headers(2, 0));
  Remove(1);
  EXPECT_TRUE(Headers(2, 0));
}

TEST_F(OpenCallsTest, S13_HeadersInManyParts) {
  ASSERT_TRUE(Begin(1, 0));
  EXPECT_TRUE(Headers(1, 60));
  EXPECT_TRUE(Headers(1, 40));
  EXPECT_FALSE(Headers(1, 1));
}

TEST_F(OpenCallsTest, S13_CallsOfAllConnections) {
  // Two calls on each of three connections are all that may be.
  for (int call = 0; call < 6; ++call) EXPECT_TRUE(Begin(call, 10 + call / 2));
  // Beyond that, whoever has few may go on, and nobody else.
  EXPECT_TRUE(Begin(6, 20));
  EXPECT_TRUE(Begin(7, 20));
  EXPECT_FALSE(Begin(8, 20));
  EXPECT_TRUE(Headers(0, 0));
  for (int call = 1; call < 9; ++call) Remove(call);
  EXPECT_TRUE(Begin(9, 10));
  EXPECT_TRUE(Begin(11, 10));
  // Headers cost, too, by their bytes.
  EXPECT_TRUE(Headers(9, 100));
  EXPECT_TRUE(Headers(0, 100));
}

TEST_F(OpenCallsTest, S13_MessagesThatDoNotEnd) {
  for (int call = 0; call < 4; ++call) ASSERT_TRUE(Begin(call, 10 + call));
  EXPECT_TRUE(Message(0, 900));
  EXPECT_TRUE(Message(1, 100));
  EXPECT_TRUE(Message(2, 200));  // a small one, beside the large one
  EXPECT_FALSE(Message(0, 1));
  // A message that ends is for its handler to account for.
  calls_.EndMessage(&names_[0]);
  EXPECT_TRUE(Message(0, 5000));
  EXPECT_TRUE(Message(1, 500));
  Remove(1);
  EXPECT_TRUE(Message(2, 500));
}

TEST_F(OpenCallsTest, S13_CancellationsAreForgottenWithTime) {
  ASSERT_TRUE(Begin(1, 0));
  ASSERT_TRUE(Begin(2, 1));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Cancel(1, 100));
  EXPECT_FALSE(Cancel(1, 100));
  EXPECT_TRUE(Cancel(2, 100));  // another connection
  EXPECT_FALSE(Cancel(1, 100.4));
  EXPECT_TRUE(Cancel(1, 102));
  EXPECT_TRUE(Cancel(1, 200));
}

// A client that waits until its calls are freed gains nothing, and connections
// that have ended are forgotten.
TEST_F(OpenCallsTest, S13_CancellationsOutliveTheirCalls) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Begin(1, 0));
    EXPECT_TRUE(Cancel(1, 100));
    Remove(1);
  }
  ASSERT_TRUE(Begin(1, 0));
  EXPECT_FALSE(Cancel(1, 100));
  Remove(1);
  for (int connection = 10; connection < 90'000; ++connection) {
    ASSERT_TRUE(Begin(1, connection));
    EXPECT_TRUE(Cancel(1, connection));
    Remove(1);
  }
  EXPECT_LT(calls_.connections(), 5000u);
}

TEST_F(OpenCallsTest, UnknownCallsAreNobodys) {
  EXPECT_TRUE(Headers(1, 1 << 30));
  EXPECT_TRUE(Message(1, 1 << 30));
  EXPECT_TRUE(Cancel(1));
  calls_.EndMessage(&names_[1]);
  Remove(1);
  EXPECT_EQ(calls_.connections(), 0u);
}

// Whatever happens in whatever order, nothing stays charged.
TEST_F(OpenCallsTest, S13_NothingStaysCharged) {
  unsigned state = 1;
  const auto next = [&state](unsigned below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % below;
  };
  std::vector<bool> live(20);
  for (int step = 0; step < 100'000; ++step) {
    const int call = static_cast<int>(next(20));
    if (!live[call]) {
      Begin(call, 50 + static_cast<int>(next(5)));
      live[call] = true;
      continue;
    }
    switch (next(5)) {
      case 0:
        Headers(call, next(50));
        break;
      case 1:
        Message(call, next(500));
        break;
      case 2:
        calls_.EndMessage(&names_[call]);
        break;
      case 3:
        Cancel(call, step);
        break;
      default:
        Remove(call);
        live[call] = false;
    }
  }
  for (int call = 0; call < 20; ++call) Remove(call);
  // All that may be, is again.
  for (int call = 0; call < 6; ++call) EXPECT_TRUE(Begin(call, 60 + call / 2));
  EXPECT_TRUE(Message(0, 1000));
}

}  // namespace
}  // namespace qk
