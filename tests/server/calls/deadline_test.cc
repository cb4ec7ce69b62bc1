// Tests how deadlines end calls, and what never runs because of them. A test's
// name begins with the row of docs/reliability.md that it covers.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/calls/load_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using testing::Analysis;
using testing::Await;
using testing::LoadTest;
using testing::Small;
using testing::Tokens;

class DeadlineTest : public LoadTest {};

struct Timed {
  grpc::Status status;
  // The time between the deadline and the end of the call.
  double late_ms = 0;
};

Timed CallWithin(pb::Analysis::Stub* stub, std::chrono::milliseconds time,
                 const pb::AnalyzeRequest& request) {
  grpc::ClientContext context;
  const auto deadline = std::chrono::system_clock::now() + time;
  context.set_deadline(deadline);
  const auto reader = stub->Analyze(&context, request);
  pb::AnalyzeEvent event;
  while (reader->Read(&event)) EXPECT_TRUE(event.has_accepted());
  Timed out;
  out.status = reader->Finish();
  out.late_ms = std::chrono::duration<double, std::milli>(
                    std::chrono::system_clock::now() - deadline)
                    .count();
  return out;
}

TEST_F(DeadlineTest, R6_DeadlinesEndOnTimeAndQueuedWorkNeverRuns) {
  Start(TinyOptions());
  HoldDevice(3);
  // The shortest deadlines hit calls in every state of being set up.
  for (const auto& [ms, rounds] : std::vector<std::pair<int, int>>{
           {1, 200}, {3, 50}, {50, 10}, {200, 5}}) {
    double worst = 0, earliest = 0;
    for (int i = 0; i < rounds; ++i) {
      const Timed out =
          CallWithin(stub_.get(), std::chrono::milliseconds(ms), Small(7));
      EXPECT_EQ(out.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
      // gRPC moves the deadline from one clock to another, and by as much as
      // it had to wait for a processor between the two: early is no failure.
      earliest = std::min(earliest, out.late_ms);
      worst = std::max(worst, out.late_ms);
    }
    std::printf(
        "R6: deadline of %d ms, the client's worst of %d: %.1f ms late, %.1f "
        "ms early\n",
        ms, rounds, worst, -earliest);
  }
  // Only the holder is left; none of the other calls ever runs.
  Await("queued", [this] { return Unfinished() == 1; });
  gate_->Open();
  ASSERT_TRUE(Analyze(Small(11)).status.ok());
  EXPECT_TRUE(HasRun(3));
  EXPECT_TRUE(HasRun(11));
  EXPECT_FALSE(HasRun(7));
}

TEST_F(DeadlineTest, R6_RunningWorkEndsAtItsDeadline) {
  constexpr size_t kPasses = 3;
  Start(TinyOptions());
  const auto request = testing::Parse<pb::AnalyzeRequest>(
      "model: 'tiny' " + Tokens(3) +
      " generate {max_new_tokens: 200} capture {off: true}");
  // The deadline grows until the first passes come before it.
  std::chrono::milliseconds deadline(100);
  for (bool running = false; !running; deadline *= 2) {
    ASSERT_LT(deadline, std::chrono::minutes(5)) << "hangs: a pass";
    const size_t before = gate_->passes().size();
    gate_->Shut();
    gate_->LetThroughMore(kPasses);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    const Analysis out = Read(stub_->Analyze(&context, request).get());
    EXPECT_EQ(out.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
    // The server notices too, in the middle of the pass that is held.
    Await("the call", [this] {
      const testing::Samples samples = Metrics();
      return testing::Total(samples, "qkscope_rpc_started_total") ==
             testing::Total(samples, "qkscope_rpc_handled_total");
    });
    running = gate_->holds();
    gate_->Open();
    ExpectIdle();
    // No pass has run after those.
    EXPECT_LE(gate_->passes().size(), before + kPasses + 1);
    if (running) {
      EXPECT_EQ(gate_->passes().size(), before + kPasses + 1);
    }
  }
}

TEST_F(DeadlineTest, R6_DeadlinesOfThePastAndOfTheFarFuture) {
  Start(TinyOptions());
  HoldDevice(3);
  for (const int ms : {0, -1, -60'000}) {
    const Timed out =
        CallWithin(stub_.get(), std::chrono::milliseconds(ms), Small(7));
    EXPECT_EQ(out.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  }
  const Timed far = CallWithin(stub_.get(), std::chrono::hours(23), Small(7));
  EXPECT_EQ(far.status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(
      far.status.error_message(),
      ::testing::MatchesRegex("deadline: 8[0-9]+ s from now, limit 600 s"));
  gate_->Open();
  ASSERT_TRUE(Analyze(Small(11)).status.ok());
  EXPECT_FALSE(HasRun(7));
}

// The device is held: only a deadline ends these calls.
TEST_F(DeadlineTest, R34_ATimeoutOfYearsMeansTheServersDeadline) {
  ServerOptions options = TinyOptions();
  options.limits.max_deadline_ms = 300;
  options.limits.write_stall_timeout_ms = 200;  // Four ticks.
  Start(options);
  for (const int days : {2, 365 * 10, 365 * 200}) {
    const Timed out =
        CallWithin(stub_.get(), std::chrono::hours(24 * days), Small(7));
    EXPECT_EQ(out.status.error_code(), StatusCode::DEADLINE_EXCEEDED)
        << days << ": " << out.status.error_message();
  }
  const Timed ordinary =
      CallWithin(stub_.get(), std::chrono::seconds(20), Small(7));
  EXPECT_EQ(ordinary.status.error_code(), StatusCode::INVALID_ARGUMENT);
  gate_->Open();
}

// This works even while the device is held: no call waits for the engine.
TEST_F(DeadlineTest, R6_ACallWithoutADeadlineGetsTheServers) {
  // The deadline grows until the first call is with the device by then.
  int64_t deadline_ms = 300;
  for (bool running = false; !running; deadline_ms *= 2) {
    ASSERT_LT(deadline_ms, 300'000) << "hangs: a pass";
    gate_ = std::make_shared<testing::Gate>();
    ServerOptions options = TinyOptions();
    options.limits.max_deadline_ms = deadline_ms;
    options.limits.write_stall_timeout_ms = 200;  // Four ticks.
    Start(options);
    std::vector<Analysis> ended(2);
    std::vector<std::thread> calls;
    for (Analysis& out : ended) {
      calls.emplace_back([&] {
        const absl::Time start = absl::Now();
        out = Analyze(Small(7));
        const double took = absl::ToDoubleMilliseconds(absl::Now() - start);
        EXPECT_EQ(out.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
        EXPECT_GE(took, static_cast<double>(deadline_ms) - 1);
        std::printf("R6: the server's deadline of %d ms: %.1f ms late\n",
                    static_cast<int>(deadline_ms),
                    took - static_cast<double>(deadline_ms));
      });
    }
    for (std::thread& call : calls) call.join();
    running = gate_->holds();
    gate_->Open();
    ExpectIdle();
    if (!running) continue;
    for (const Analysis& out : ended) {
      EXPECT_EQ(out.status.error_message(), "deadline exceeded");
    }
    // The pass held at the gate is the only one that ever started.
    EXPECT_EQ(gate_->passes().size(), 1u);
  }
}

}  // namespace
}  // namespace qk
