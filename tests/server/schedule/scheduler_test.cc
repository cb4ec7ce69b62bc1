// Tests the scheduler with a simulated device and runs: no model, no gRPC. Also
// built with ThreadSanitizer.
#include "server/schedule/scheduler.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/schedule/admission.h"
#include "tests/server/schedule/scheduler_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAre;
using testing::FakeDevice;
using testing::FakeRun;
using testing::FakeRunOptions;
using testing::NullObserver;
using testing::Outcome;
using testing::Submitted;

// The device seems to be as fast as possible, however busy the machine is, and
// the test sets the time of day.
class TestClock : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() + absl::Milliseconds(passed_ms_.load());
  }
  double Seconds() const override { return 1e-6 * ++looks_; }
  void Advance(absl::Duration time) {
    passed_ms_ += absl::ToInt64Milliseconds(time);
  }

 private:
  mutable std::atomic<int64_t> looks_ = 0;
  std::atomic<int64_t> passed_ms_ = 0;
};

class SchedulerTest : public ::testing::Test {
 protected:
  void Start(int max_queued = 256, int max_rows = 100) {
    SchedulerOptions options;
    options.max_queued_requests = max_queued;
    options.max_rows_per_pass = max_rows;
    scheduler_ =
        std::make_unique<Scheduler>(options, &device_, &observer_, &clock_);
  }

  Submitted Submit(FakeRunOptions options,
                   absl::Time deadline = absl::InfiniteFuture(),
                   const std::string& alias = "") {
    Submitted out;
    out.request = std::make_shared<ScheduledRequest>(
        testing::InfoFor(alias.empty() ? alias_ : alias), deadline,
        [positions = out.positions](int p) { positions->push_back(p); });
    out.status = Add(options, out.request, out.outcome);
    return out;
  }

  absl::Status Add(FakeRunOptions options,
                   const std::shared_ptr<ScheduledRequest>& request,
                   std::shared_ptr<Outcome> outcome) {
    if (options.model == nullptr) options.model = &model_;
    std::vector<ScheduledRun> runs(1);
    runs[0].prefill_rows = options.rows[0];
    runs[0].run = std::make_unique<FakeRun>(options, std::move(outcome));
    return scheduler_->Submit(request, std::move(runs));
  }

  // Submits a request that holds the device inside its first layer.
  Submitted Block(int rows = 1) {
    device_.gate.Shut();
    FakeRunOptions options;
    options.name = "blocker";
    options.rows = {rows};
    Submitted out = Submit(options);
    device_.gate.AwaitArrivals(1);
    return out;
  }

  static FakeRunOptions Named(const std::string& name,
                              std::vector<int> rows = {1}, int passes = 1) {
    FakeRunOptions options;
    options.name = name;
    options.rows = std::move(rows);
    options.passes = passes;
    return options;
  }

  Model model_, other_model_;
  std::string alias_ = "u";  // of the next request
  FakeDevice device_;
  NullObserver observer_;
  TestClock clock_;
  SystemClock system_clock_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerTest, RunsARequest) {
  Start();
  const Submitted a = Submit(Named("a", {3}, 2));
  EXPECT_TRUE(a.Await().ok());
  EXPECT_EQ(a.outcome->passes, 2);
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_THAT(device_.passes(),
              ElementsAre(ElementsAre("a"), ElementsAre("a")));
  EXPECT_EQ(a.request->started(), clock_.Now());
}

TEST_F(SchedulerTest, WhatWaitsGoesIntoOneBatch) {
  Start();
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a", {2, 3}));
  const Submitted b = Submit(Named("b"));
  device_.gate.Open();
  EXPECT_TRUE(a.Await().ok());
  EXPECT_TRUE(b.Await().ok());
  EXPECT_THAT(device_.passes(), ElementsAre(ElementsAre("blocker"),
                                            ElementsAre("a0", "a1", "b")));
}

TEST_F(SchedulerTest, AnIdleDeviceWaitsForWhoComesTogether) {
  // max_gather grows until b comes in time.
  SchedulerOptions options;
  options.max_gather = absl::Milliseconds(500);
  device_.layer_seconds = 1000;
  for (bool came = false; !came; options.max_gather *= 2) {
    scheduler_ = std::make_unique<Scheduler>(options, &device_, &observer_,
                                             &system_clock_);
    // The time per row is not known yet, so there is no wait.
    EXPECT_TRUE(Submit(Named("first", {16})).Await().ok());
    const size_t before = device_.passes().size();
    const auto start = std::chrono::steady_clock::now();
    const Submitted a = Submit(Named("a"));
    absl::SleepFor(absl::Milliseconds(5));
    const Submitted b = Submit(Named("b"));
    // The device began to wait after `start`.
    came = std::chrono::steady_clock::now() - start <
           absl::ToChronoNanoseconds(options.max_gather);
    EXPECT_TRUE(a.Await().ok());
    EXPECT_TRUE(b.Await().ok());
    if (!came) continue;
    const auto passes = device_.passes();
    ASSERT_EQ(passes.size(), before + 1);
    EXPECT_THAT(passes.back(), ElementsAre("a", "b"));
  }
}

TEST_F(SchedulerTest, ABatchIsBoundedByRows) {
  Start(256, /*max_rows=*/10);
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a", {6}));
  const Submitted b = Submit(Named("b", {6}));
  const Submitted c = Submit(Named("c", {4}));
  device_.gate.Open();
  for (const Submitted& s : {a, b, c}) EXPECT_TRUE(s.Await().ok());
  // c fits beside a, while b has to wait.
  EXPECT_THAT(device_.passes(),
              ElementsAre(ElementsAre("blocker"), ElementsAre("a", "c"),
                          ElementsAre("b")));
}

TEST_F(SchedulerTest, ASequenceOverTheBoundGoesAlone) {
  Start(256, /*max_rows=*/10);
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a", {25, 25}));
  device_.gate.Open();
  EXPECT_TRUE(a.Await().ok());
  EXPECT_THAT(device_.passes(),
              ElementsAre(ElementsAre("blocker"), ElementsAre("a0"),
                          ElementsAre("a1")));
}

TEST_F(SchedulerTest, DecodeAndPrefillShareAPass) {
  Start();
  device_.gate.Shut();
  const Submitted a = Submit(Named("a", {1}, 3));
  device_.gate.AwaitArrivals(1);
  const Submitted b = Submit(Named("b", {5}));
  device_.gate.Open();
  EXPECT_TRUE(a.Await().ok());
  EXPECT_TRUE(b.Await().ok());
  EXPECT_THAT(
      device_.passes(),
      ElementsAre(ElementsAre("a"), ElementsAre("a", "b"), ElementsAre("a")));
}

TEST_F(SchedulerTest, QueueCapIsExact) {
  Start(/*max_queued=*/8);
  const Submitted blocker = Block();
  std::vector<Submitted> all;
  for (int i = 0; i < 19; ++i) all.push_back(Submit(Named("r")));
  int refused = 0;
  for (const Submitted& s : all) {
    if (s.status.ok()) continue;
    ++refused;
    EXPECT_EQ(s.status,
              RefusedBySchedule("queue full (8/8)",
                                {RefusedBy::kQueue, absl::Seconds(1)}));
  }
  EXPECT_EQ(refused, 11);
  EXPECT_EQ(scheduler_->state().waiting_requests, 8);
  EXPECT_EQ(scheduler_->state().running_requests, 1);
  EXPECT_EQ(scheduler_->state().rows_ahead, 8);
  device_.gate.Open();
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_TRUE(Submit(Named("r")).status.ok());
}

TEST_F(SchedulerTest, ARequestWithRunsInsideIsNotRefusedForTheQueue) {
  Start(/*max_queued=*/1);
  const Submitted blocker = Block();
  const Submitted waiting = Submit(Named("w"));
  EXPECT_FALSE(Submit(Named("x")).status.ok());
  auto more = std::make_shared<Outcome>();
  EXPECT_TRUE(Add(Named("more"), blocker.request, more).ok());
  EXPECT_EQ(scheduler_->state().waiting_requests, 1);
  device_.gate.Open();
  more->AwaitDestroyed();
  EXPECT_TRUE(more->status.ok());
}

TEST_F(SchedulerTest, PositionsMoveUp) {
  Start();
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a"));
  const Submitted b = Submit(Named("b"));
  const Submitted c = Submit(Named("c"));
  a.request->Cancel(absl::CancelledError("client left"));
  device_.gate.Open();
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  scheduler_.reset();
  EXPECT_THAT(*a.positions, ElementsAre(0));
  EXPECT_THAT(*b.positions, ElementsAre(1, 0));
  ASSERT_GE(c.positions->size(), 2u);
  EXPECT_EQ(c.positions->front(), 2);
  EXPECT_EQ(c.positions->back(), 0);
}

TEST_F(SchedulerTest, FifoAmongRequests) {
  Start(256, /*max_rows=*/1);
  const Submitted blocker = Block();
  for (const char* name : {"a", "b", "c", "d"}) Submit(Named(name));
  device_.gate.Open();
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_THAT(
      device_.passes(),
      ElementsAre(ElementsAre("blocker"), ElementsAre("a"), ElementsAre("b"),
                  ElementsAre("c"), ElementsAre("d")));
}

TEST_F(SchedulerTest, ARequestOfManyRunsDoesNotShutOutTheNext) {
  Start(256, /*max_rows=*/2);
  const Submitted blocker = Block();
  Submitted many = Submit(Named("m0"));
  for (const char* name : {"m1", "m2", "m3", "m4"}) {
    EXPECT_TRUE(
        Add(Named(name), many.request, std::make_shared<Outcome>()).ok());
  }
  const Submitted late = Submit(Named("late"));
  device_.gate.Open();
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_THAT(device_.passes(),
              ElementsAre(ElementsAre("blocker"), ElementsAre("m0", "late"),
                          ElementsAre("m1", "m2"), ElementsAre("m3", "m4")));
}

TEST_F(SchedulerTest, ModelsTakeTurns) {
  Start();
  const Submitted blocker = Block();
  FakeRunOptions a = Named("a", {1}, 3), b = Named("b", {1}, 2);
  b.model = &other_model_;
  const Submitted sa = Submit(a), sb = Submit(b);
  device_.gate.Open();
  EXPECT_TRUE(sa.Await().ok());
  EXPECT_TRUE(sb.Await().ok());
  EXPECT_THAT(
      device_.passes(),
      ElementsAre(ElementsAre("blocker"), ElementsAre("b"), ElementsAre("a"),
                  ElementsAre("b"), ElementsAre("a"), ElementsAre("a")));
}

TEST_F(SchedulerTest, CancelledInTheQueueNeverRuns) {
  Start();
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a"));
  a.request->Cancel(absl::CancelledError("client left"));
  device_.gate.Open();
  EXPECT_EQ(a.Await(), absl::CancelledError("client left"));
  EXPECT_EQ(a.outcome->passes, 0);
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_THAT(device_.passes(), ElementsAre(ElementsAre("blocker")));
}

TEST_F(SchedulerTest, CancelledInThePassGetsNoResults) {
  Start();
  const Submitted a = Block();
  a.request->Cancel(absl::CancelledError("client left"));
  device_.gate.Open();
  EXPECT_EQ(a.Await(), absl::CancelledError("client left"));
  EXPECT_EQ(a.outcome->passes, 0);
}

TEST_F(SchedulerTest, SubmitAfterCancelIsRefused) {
  Start();
  auto request = std::make_shared<ScheduledRequest>(
      testing::InfoFor("u"), absl::InfiniteFuture(), [](int) {});
  request->Cancel(absl::CancelledError("client left"));
  EXPECT_EQ(Add(Named("a"), request, std::make_shared<Outcome>()),
            absl::CancelledError("client left"));
}

TEST_F(SchedulerTest, DeadlineInTheQueue) {
  Start();
  const Submitted blocker = Block();
  const Submitted a = Submit(Named("a"), clock_.Now());
  device_.gate.Open();
  EXPECT_EQ(a.Await(),
            absl::DeadlineExceededError("deadline exceeded before execution"));
  EXPECT_EQ(a.outcome->passes, 0);
}

TEST_F(SchedulerTest, DeadlineBetweenLayers) {
  Start();
  device_.gate.Shut();
  const absl::Time deadline = clock_.Now() + absl::Milliseconds(200);
  const Submitted a = Submit(Named("a", {1}, 1000), deadline);
  device_.gate.AwaitArrivals(1);
  clock_.Advance(absl::Milliseconds(201));
  device_.gate.Open();
  EXPECT_EQ(a.Await(), absl::DeadlineExceededError("deadline exceeded"));
  EXPECT_EQ(a.outcome->passes, 0);
}

TEST_F(SchedulerTest, WaitsForMemoryOfOthers) {
  Start();
  const Submitted blocker = Block();
  std::atomic<int> tries = 0;
  FakeRunOptions a = Named("a");
  a.reserve = [&] {
    return ++tries == 1 ? absl::ResourceExhaustedError("no pages")
                        : absl::OkStatus();
  };
  const Submitted b = Submit(Named("b"));
  const Submitted sa = Submit(a);
  const Submitted c = Submit(Named("c"));
  device_.gate.Open();
  EXPECT_TRUE(sa.Await().ok());
  EXPECT_TRUE(c.Await().ok());
  EXPECT_EQ(tries, 2);
  // c does not overtake a.
  EXPECT_THAT(device_.passes(),
              ElementsAre(ElementsAre("blocker"), ElementsAre("b"),
                          ElementsAre("a", "c")));
}

TEST_F(SchedulerTest, CancelledWhileItFindsNoMemory) {
  Start();
  const Submitted blocker = Block();
  // b holds memory when a asks for some.
  const Submitted b = Submit(Named("b"));
  std::shared_ptr<ScheduledRequest> request;
  FakeRunOptions options = Named("a");
  options.reserve = [&request] {
    request->Cancel(absl::CancelledError("client left"));
    return absl::ResourceExhaustedError("no pages");
  };
  const Submitted a = Submit(options);
  request = a.request;
  const Submitted c = Submit(Named("c"));
  device_.gate.Open();
  EXPECT_EQ(a.Await(), absl::CancelledError("client left"));
  EXPECT_TRUE(c.Await().ok());  // the model is not blocked
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
}

TEST_F(SchedulerTest, WhatCanNeverFitIsRefused) {
  Start();
  FakeRunOptions a = Named("a");
  a.reserve = [] {
    return absl::FailedPreconditionError("needs 9.1 GiB, 3 GiB free");
  };
  EXPECT_EQ(Submit(a).Await(),
            absl::FailedPreconditionError("needs 9.1 GiB, 3 GiB free"));
  FakeRunOptions alone = Named("alone");
  alone.reserve = [] { return absl::ResourceExhaustedError("no pages"); };
  EXPECT_EQ(Submit(alone).Await(), absl::ResourceExhaustedError("no pages"));
  EXPECT_TRUE(Submit(Named("b")).Await().ok());
}

TEST_F(SchedulerTest, OthersRunBetweenTheTilesOfAComparison) {
  Start();
  std::atomic<int> tiles = 0;
  std::atomic<bool> b_ran = false;
  absl::Notification third_tile, b_sent, tile_after_b, cancelled;
  FakeRunOptions options = Named("compares");
  options.tiles = 1000;
  options.on_tile = [&] {
    if (++tiles == 3) {
      third_tile.Notify();
      b_sent.WaitForNotification();
    }
    if (b_ran.exchange(false)) {
      tile_after_b.Notify();
      cancelled.WaitForNotification();
    }
  };
  const Submitted a = Submit(options);
  third_tile.WaitForNotification();
  alias_ = "other";
  FakeRunOptions between = Named("b");
  between.reserve = [&] {
    b_ran = true;
    return absl::OkStatus();
  };
  const Submitted b = Submit(between);
  b_sent.Notify();
  EXPECT_TRUE(b.Await().ok());
  tile_after_b.WaitForNotification();
  EXPECT_LT(tiles, 1000);
  a.request->Cancel(absl::CancelledError("enough"));
  cancelled.Notify();
  EXPECT_EQ(a.Await(), absl::CancelledError("enough"));
  EXPECT_LT(tiles, 1000);
  // This run goes to its end, and on to the next pass.
  FakeRunOptions whole = Named("whole", {1}, 2);
  whole.tiles = 5;
  whole.on_tile = [&] { ++tiles; };
  tiles = 0;
  EXPECT_TRUE(Submit(whole).Await().ok());
  EXPECT_EQ(tiles, 5);
}

// A parked pass returns its cancelled run's memory before it continues.
TEST_F(SchedulerTest, CancelledWhileParked) {
  Start(256, /*max_rows=*/1000);
  const Submitted parked = Block(/*rows=*/900);
  alias_ = "other";
  const Submitted b = Submit(Named("b", {1}, 1));
  parked.request->Cancel(absl::CancelledError("left"));
  device_.gate.Open();
  EXPECT_EQ(parked.Await(), absl::CancelledError("left"));
  EXPECT_TRUE(b.Await().ok());
  EXPECT_EQ(parked.outcome->passes, 0);
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_EQ(observer_.cancelled.size(), 1u);
}

TEST_F(SchedulerTest, AFailedPassEndsItsRunsOnly) {
  Start();
  device_.pass_status = absl::InternalError("device lost");
  EXPECT_EQ(Submit(Named("a")).Await(), absl::InternalError("device lost"));
  device_.pass_status = absl::OkStatus();
  EXPECT_TRUE(Submit(Named("b")).Await().ok());
}

TEST_F(SchedulerTest, DrainLetsRunningWorkFinish) {
  Start();
  const Submitted blocker = Block();
  const Submitted queued = Submit(Named("queued"));
  scheduler_->StopAdmission();
  EXPECT_EQ(Submit(Named("late")).status,
            absl::UnavailableError("server is shutting down"));
  EXPECT_FALSE(scheduler_->WaitUntilIdle(absl::InfinitePast()));
  device_.gate.Open();
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_TRUE(blocker.Await().ok());
  EXPECT_TRUE(queued.Await().ok());
}

TEST_F(SchedulerTest, HardStopEndsEverything) {
  Start();
  const Submitted running = Block();
  const Submitted queued = Submit(Named("queued"));
  scheduler_->StopAdmission();
  scheduler_->CancelAll(absl::UnavailableError("server is shutting down"));
  device_.gate.Open();
  EXPECT_TRUE(absl::IsUnavailable(running.Await()));
  EXPECT_TRUE(absl::IsUnavailable(queued.Await()));
}

TEST_F(SchedulerTest, DestructionEndsEverything) {
  Start();
  const Submitted running = Block();
  const Submitted queued = Submit(Named("queued"));
  std::thread opener([this] { device_.gate.Open(); });
  scheduler_.reset();
  opener.join();
  EXPECT_TRUE(running.outcome->destroyed);
  EXPECT_TRUE(queued.outcome->destroyed);
}

// All waiting requests are cancelled while the scheduler chooses among them.
TEST_F(SchedulerTest, CancelledWhileOthersAreChosen) {
  constexpr int kRounds = 2000, kWaiting = 16;
  Start();
  for (int round = 0; round < kRounds; ++round) {
    const Submitted blocker = Block();
    std::vector<Submitted> waiting;
    for (int i = 0; i < kWaiting; ++i) waiting.push_back(Submit(Named("w")));
    std::thread canceller([&] {
      for (auto it = waiting.rbegin(); it != waiting.rend(); ++it) {
        it->request->Cancel(absl::CancelledError("gone"));
      }
    });
    device_.gate.Open();
    canceller.join();
    EXPECT_TRUE(blocker.Await().ok());
    for (const Submitted& one : waiting) {
      const absl::Status status = one.Await();
      EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    }
  }
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
}

// Many threads submit and cancel at random moments; every run ends once.
TEST_F(SchedulerTest, SubmitAndCancelFromManyThreads) {
  Start(/*max_queued=*/64, /*max_rows=*/7);
  constexpr int kThreads = 32, kRequests = 30;
  std::vector<std::thread> threads;
  std::atomic<int> ended = 0, refused = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRequests; ++i) {
        FakeRunOptions options = Named("r", {1 + (t + i) % 3}, 1 + i % 4);
        if (t % 2 == 0) options.model = &other_model_;
        const Submitted s = Submit(options, absl::InfiniteFuture(),
                                   "user" + std::to_string(t % 5));
        if (!s.status.ok()) {
          ++refused;
          continue;
        }
        if (i % 3 == 0) s.request->Cancel(absl::CancelledError("left"));
        if (i % 5 == 0) std::this_thread::yield();
        s.outcome->AwaitDestroyed();
        EXPECT_TRUE(s.outcome->finished);
        ++ended;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended + refused, kThreads * kRequests);
  EXPECT_TRUE(scheduler_->WaitUntilIdle(absl::InfiniteFuture()));
}

}  // namespace
}  // namespace qk
