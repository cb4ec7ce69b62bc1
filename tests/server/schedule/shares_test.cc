// Places in the queue, rooms and budgets, with a scheduler that runs slice by
// slice and a clock that the test sets.
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/schedule/admission.h"
#include "server/schedule/scheduler.h"
#include "tests/server/schedule/scheduler_testing.h"

namespace qk {
namespace {

using testing::FakeDevice;
using testing::FakeRun;
using testing::FakeRunOptions;
using ::testing::HasSubstr;
using testing::kLayers;
using testing::NullObserver;
using testing::Submitted;

constexpr absl::Time kStart = absl::FromUnixSeconds(1'000'000);

class TestClock : public Clock {
 public:
  absl::Time Now() const override { return kStart + absl::Seconds(seconds_); }
  double Seconds() const override { return seconds_; }
  void Advance(double seconds) { seconds_ += seconds; }

 private:
  double seconds_ = 0;
};

// Room for some runs at a time.
class TestRoom : public RunRoom {
 public:
  explicit TestRoom(int* free) : free_(free) {}
  bool TakeRoom() override {
    if (*free_ == 0) return false;
    --*free_;
    return true;
  }
  void GiveRoomBack() override { ++*free_; }

 private:
  int* const free_;
};

class SharesTest : public ::testing::Test {
 protected:
  void Start(int max_queued = 8) {
    SchedulerOptions options;
    options.own_thread = false;
    options.max_queued_requests = max_queued;
    scheduler_ =
        std::make_unique<Scheduler>(options, &device_, &observer_, &clock_);
  }
  void TearDown() override { scheduler_.reset(); }

  static std::shared_ptr<User> Named(const std::string& alias,
                                     double weight = 1) {
    auto user = std::make_shared<User>();
    user->alias = alias;
    user->weight = weight;
    return user;
  }
  static std::shared_ptr<User> Operator() {
    auto user = Named("operator");
    user->role = UserRole::kOperator;
    return user;
  }
  static std::shared_ptr<User> WithBudget(int64_t device_ms, int64_t bytes,
                                          int64_t window_s = 3600) {
    auto user = Named("u");
    user->budget.device_ms_per_window = device_ms;
    user->budget.bytes_per_window = bytes;
    user->budget.window_s = window_s;
    return user;
  }

  struct Request {
    int rows = 1;
    int passes = 1;
    int64_t least_bytes = 0;
    int64_t most_bytes = 0;
    int64_t memory_bytes = 0;
    RunRoom* room = nullptr;
    absl::Time deadline = absl::InfiniteFuture();
    std::function<absl::Status()> reserve = [] { return absl::OkStatus(); };
  };
  Submitted Submit(const std::shared_ptr<User>& user, const Request& request) {
    Submitted out;
    RequestInfo info;
    info.user = user;
    out.request =
        std::make_shared<ScheduledRequest>(info, request.deadline, [](int) {});
    FakeRunOptions options;
    options.name = user->alias;
    options.model = &model_;
    options.rows = {request.rows};
    options.passes = request.passes;
    options.reserve = request.reserve;
    std::vector<ScheduledRun> runs(1);
    runs[0].prefill_rows = request.rows;
    runs[0].room = request.room;
    runs[0].memory_bytes = request.memory_bytes;
    runs[0].least_bytes = request.least_bytes;
    runs[0].most_bytes = request.most_bytes;
    if (request.most_bytes > 0) {
      runs[0].answer = std::make_shared<UsageHold>();
      answers_.push_back(runs[0].answer);
    }
    runs[0].run = std::make_unique<FakeRun>(options, out.outcome);
    out.status = scheduler_->Submit(out.request, std::move(runs));
    return out;
  }
  Submitted Submit(const std::shared_ptr<User>& user) {
    return Submit(user, Request());
  }

  // Returns the number of slices.
  int RunAll() {
    int slices = 0;
    // The first time that nothing can run, requests may have been ended.
    for (int idle = 0; idle < 2;) {
      scheduler_->RunNextSlice(&wake_) ? ++slices : ++idle;
    }
    return slices;
  }
  // Tells the scheduler how long a row takes.
  void Measure(double seconds_per_row) {
    device_.layer_seconds = seconds_per_row * 100 / kLayers;
    Request request;
    request.rows = 100;
    const Submitted out = Submit(Named("measure"), request);
    RunAll();
    EXPECT_TRUE(out.outcome->status.ok());
  }
  static absl::Status StatusOf(const Submitted& out) {
    EXPECT_TRUE(out.outcome->finished);
    return out.outcome->status;
  }
  static ScheduleRefusal RefusalOf(const absl::Status& status) {
    const auto refusal = ScheduleRefusalOf(status);
    EXPECT_TRUE(refusal.has_value()) << status;
    return refusal.value_or(ScheduleRefusal());
  }

  Model model_;
  FakeDevice device_;
  NullObserver observer_;
  TestClock clock_;
  absl::Time wake_;
  std::vector<std::shared_ptr<UsageHold>> answers_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SharesTest, R25_ANewcomerGetsAPlaceInAFullQueue) {
  Start(8);
  std::vector<Submitted> of_a;
  for (int i = 0; i < 8; ++i) of_a.push_back(Submit(Named("a")));
  EXPECT_EQ(RefusalOf(Submit(Named("a")).status).by, RefusedBy::kQueue);
  // b's share of the places is four; a's newest requests give way, one by one.
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(Submit(Named("b")).status.ok()) << i;
    const absl::Status ended = StatusOf(of_a[7 - i]);
    EXPECT_EQ(RefusalOf(ended).by, RefusedBy::kQueue);
    EXPECT_GT(RefusalOf(ended).retry, absl::ZeroDuration());
    EXPECT_FALSE(of_a[6 - i].outcome->finished);
    EXPECT_EQ(scheduler_->state().waiting_requests, 8);
  }
  EXPECT_FALSE(Submit(Named("b")).status.ok());
  EXPECT_FALSE(Submit(Named("a")).status.ok());
  RunAll();
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(StatusOf(of_a[i]).ok());
}

TEST_F(SharesTest, R25_SharesGoByWeight) {
  Start(8);
  std::vector<Submitted> of_a;
  for (int i = 0; i < 8; ++i) of_a.push_back(Submit(Named("a", 1)));
  int got = 0;
  while (Submit(Named("b", 3)).status.ok() && got < 100) ++got;
  EXPECT_EQ(got, 6);
  EXPECT_FALSE(of_a[1].outcome->finished);
  EXPECT_TRUE(of_a[2].outcome->finished);
}

// With more users than places, each user with a request has one; nobody is
// pushed out for another.
TEST_F(SharesTest, R25_TheLastPlaceOfAUserIsSafe) {
  Start(2);
  const Submitted a = Submit(Named("a")), b = Submit(Named("b"));
  EXPECT_FALSE(Submit(Named("c")).status.ok());
  RunAll();
  EXPECT_TRUE(StatusOf(a).ok());
  EXPECT_TRUE(StatusOf(b).ok());
}

TEST_F(SharesTest, R25_OperatorsHavePlacesOfTheirOwn) {
  Start(8);
  for (int i = 0; i < 8; ++i) Submit(Named("a"));
  std::vector<Submitted> of_operator;
  for (int i = 0; i < 4; ++i) {
    of_operator.push_back(Submit(Operator()));
    EXPECT_TRUE(of_operator.back().status.ok());
  }
  // The cap for others is what it was: all eight of a's wait.
  EXPECT_EQ(scheduler_->state().waiting_requests, 12);
  EXPECT_FALSE(Submit(Named("a")).status.ok());
}

TEST_F(SharesTest, R26_ARunTakesItsRoomWhenItIsNext) {
  Start();
  int free = 1;
  TestRoom room(&free);
  Request request;
  request.room = &room;
  const Submitted first = Submit(Named("a"), request);
  const Submitted second = Submit(Named("a"), request);
  const Submitted other = Submit(Named("b"));
  EXPECT_EQ(free, 1);
  RunAll();
  EXPECT_TRUE(StatusOf(first).ok());
  EXPECT_TRUE(StatusOf(other).ok());
  // The room is still with the first one's reader.
  EXPECT_FALSE(second.outcome->finished);
  EXPECT_EQ(free, 0);
  free = 1;
  scheduler_->RoomSignal()();
  RunAll();
  EXPECT_TRUE(StatusOf(second).ok());
}

TEST_F(SharesTest, R26_ARunThatFindsNoMemoryGivesItsRoomBack) {
  Start();
  int free = 2;
  TestRoom room(&free);
  Request holder;
  holder.passes = 2;
  const Submitted first = Submit(Named("a"), holder);
  absl::Time wake;
  ASSERT_TRUE(scheduler_->RunNextSlice(&wake));
  bool memory = false;
  Request request;
  request.room = &room;
  request.reserve = [&] {
    return memory ? absl::OkStatus() : absl::ResourceExhaustedError("no");
  };
  const Submitted second = Submit(Named("b"), request);
  ASSERT_TRUE(scheduler_->RunNextSlice(&wake));
  EXPECT_FALSE(second.outcome->finished);
  EXPECT_EQ(free, 2);
  memory = true;
  RunAll();
  EXPECT_TRUE(StatusOf(first).ok());
  EXPECT_TRUE(StatusOf(second).ok());
  EXPECT_EQ(free, 1);
}

TEST_F(SharesTest, R27_WhatIsInFlightCounts) {
  Start();
  Measure(0.001);
  const auto user = WithBudget(300, 0);
  Request request;
  request.rows = 100;  // 100 ms
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(Submit(user, request).status.ok()) << i;
  }
  const absl::Status refused = Submit(user, request).status;
  EXPECT_EQ(RefusalOf(refused).by, RefusedBy::kBudget);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("0 of 300 device ms used and 300 held by requests in "
                        "flight in 3600 s; retry in 1 s"));
  // Another user is not concerned.
  EXPECT_TRUE(Submit(Named("b"), request).status.ok());
}

TEST_F(SharesTest, R27_WhatWasHeldAndNotUsedIsFree) {
  Start();
  Measure(0.001);
  const auto user = WithBudget(300, 0);
  device_.layer_seconds = 0.001 / kLayers;
  Request request;
  request.rows = 100;
  for (int i = 0; i < 50; ++i) {
    const Submitted out = Submit(user, request);
    ASSERT_TRUE(out.status.ok()) << i << " " << out.status;
    RunAll();
    EXPECT_TRUE(StatusOf(out).ok());
  }
}

TEST_F(SharesTest, R27_AUsedUpBudgetEndsARequestAfterThePass) {
  Start();
  device_.layer_seconds = 0.1 / kLayers;
  const auto user = WithBudget(250, 0);
  Request request;
  request.passes = 100;
  const Submitted out = Submit(user, request);
  const int slices = RunAll();
  EXPECT_EQ(slices, 3);  // 0.1 s each: the third one passes the budget
  EXPECT_EQ(out.outcome->passes, 3);
  const absl::Status ended = StatusOf(out);
  EXPECT_EQ(RefusalOf(ended).by, RefusedBy::kBudget);
  EXPECT_GT(RefusalOf(ended).retry, absl::Seconds(3599));
  EXPECT_THAT(std::string(ended.message()),
              HasSubstr("client budget: 300 of 250 device ms used in 3600 s; "
                        "retry in 3"));
}

// A window that is over soon is waited for.
TEST_F(SharesTest, R27_AShortWaitIsAPause) {
  Start();
  device_.layer_seconds = 0.1 / kLayers;
  const auto user = WithBudget(250, 0, 4);
  Request request;
  request.passes = 6;
  const Submitted out = Submit(user, request);
  EXPECT_EQ(RunAll(), 3);
  EXPECT_FALSE(out.outcome->finished);
  ASSERT_LT(wake_, kStart + absl::Seconds(6));
  clock_.Advance(absl::ToDoubleSeconds(wake_ - clock_.Now()));
  EXPECT_EQ(RunAll(), 3);
  EXPECT_TRUE(StatusOf(out).ok());
}

TEST_F(SharesTest, R26_WhatCannotRunBeforeItsDeadlineEndsAtOnce) {
  Start();
  device_.layer_seconds = 0.1 / kLayers;
  const auto user = WithBudget(100, 0, 3600);
  Request request;
  request.deadline = kStart + absl::Seconds(600);
  // Nothing is known of a row's time yet, so all are taken; the pass that they
  // share uses up the budget.
  std::vector<Submitted> all;
  Request large = request;
  large.rows = 4096;
  all.push_back(Submit(user, large));
  for (int i = 0; i < 5; ++i) all.push_back(Submit(user, large));
  RunAll();
  EXPECT_TRUE(StatusOf(all[0]).ok());
  for (size_t i = 1; i < all.size(); ++i) {
    const absl::Status ended = StatusOf(all[i]);
    EXPECT_EQ(RefusalOf(ended).by, RefusedBy::kBudget) << i;
    EXPECT_GT(RefusalOf(ended).retry, absl::Seconds(600));
  }
  EXPECT_EQ(scheduler_->state().waiting_requests, 0);
}

TEST_F(SharesTest, R27_BytesAreComparedBeforeTheRun) {
  Start();
  const auto user = WithBudget(0, 5000);
  Request request;
  request.least_bytes = 23'000'000;
  request.most_bytes = 24'000'000;
  const absl::Status never = Submit(user, request).status;
  EXPECT_EQ(RefusalOf(never).retry, absl::InfiniteDuration());
  EXPECT_THAT(std::string(never.message()),
              HasSubstr("0 of 5000 bytes used in 3600 s; the answer needs at "
                        "least 23000000 bytes"));
  request.least_bytes = 2000;
  request.most_bytes = 2400;
  EXPECT_TRUE(Submit(user, request).status.ok());
  EXPECT_TRUE(Submit(user, request).status.ok());
  const absl::Status later = Submit(user, request).status;
  EXPECT_EQ(RefusalOf(later).retry, absl::Seconds(1));
  EXPECT_THAT(std::string(later.message()),
              HasSubstr("0 of 5000 bytes used and 4800 held"));
  // One answer is sent, and takes less than it might have.
  scheduler_->ChargeBytes(*user, Priority::kInteractive, 2100);
  answers_[1]->UseUp();
  EXPECT_FALSE(Submit(user, request).status.ok());
  answers_[2]->UseUp();
  EXPECT_TRUE(Submit(user, request).status.ok());
}

TEST_F(SharesTest, R27_AnAnswerIsHeldAgainstTheBudgetToo) {
  Start();
  const auto user = WithBudget(0, 5000);
  auto first = scheduler_->HoldBytes(*user, 3000);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(RefusalOf(scheduler_->HoldBytes(*user, 3000).status()).retry,
            absl::Seconds(1));
  first->reset();
  EXPECT_TRUE(scheduler_->HoldBytes(*user, 3000).ok());
}

// An estimate of a busy spell does not say that a request can never run.
TEST_F(SharesTest, R28_AnEstimateIsNotForever) {
  Start();
  Measure(0.008);
  const auto user = WithBudget(300, 0);
  Request request;
  request.rows = 100;  // about 800 ms, says the estimate
  const Submitted out = Submit(user, request);
  ASSERT_TRUE(out.status.ok()) << out.status;
  // It holds the whole budget meanwhile.
  const absl::Status second = Submit(user, request).status;
  EXPECT_EQ(RefusalOf(second).retry, absl::Seconds(1));
  device_.layer_seconds = 0.189 / kLayers;
  RunAll();
  EXPECT_TRUE(StatusOf(out).ok());
  const absl::Status third = Submit(user, request).status;
  EXPECT_GT(RefusalOf(third).retry, absl::Seconds(3000));
  EXPECT_LT(RefusalOf(third).retry, absl::Seconds(4000));
}

TEST_F(SharesTest, LoadTellsOfTheQueueAndOfUsers) {
  Start();
  const auto user = WithBudget(1000, 500);
  Request request;
  request.passes = 3;
  request.memory_bytes = 70;
  ASSERT_TRUE(Submit(user, request).status.ok());
  clock_.Advance(2);
  ASSERT_TRUE(Submit(user, request).status.ok());
  ASSERT_TRUE(Submit(Named("v"), request).status.ok());
  clock_.Advance(3);
  SchedulerLoad load = scheduler_->Load();
  EXPECT_EQ(load.queue_limit, 8);
  EXPECT_EQ(load.oldest_wait, absl::Seconds(5));
  ASSERT_EQ(load.users.size(), 2u);
  EXPECT_EQ(load.users[0].alias, "u");
  EXPECT_EQ(load.users[0].in_flight, 2);
  EXPECT_EQ(load.users[0].memory_bytes, 0);
  EXPECT_EQ(load.users[0].budget_used, 0.0);
  EXPECT_EQ(load.users[1].alias, "v");
  EXPECT_EQ(load.users[1].in_flight, 1);
  EXPECT_EQ(load.users[1].budget_used, std::nullopt);

  device_.layer_seconds = 0.25 / kLayers;
  // One pass of all three, who wait no longer.
  ASSERT_TRUE(scheduler_->RunNextSlice(&wake_));
  load = scheduler_->Load();
  EXPECT_EQ(load.oldest_wait, absl::ZeroDuration());
  EXPECT_EQ(load.users[0].memory_bytes, 140);
  EXPECT_EQ(load.users[1].memory_bytes, 70);
  EXPECT_NEAR(load.users[0].device_seconds, 0.25 * 2 / 3, 1e-9);
  EXPECT_NEAR(load.users[1].device_seconds, 0.25 / 3, 1e-9);
  EXPECT_NEAR(*load.users[0].budget_used, 0.25 * 2 / 3, 1e-9);
  scheduler_->ChargeBytes(*user, Priority::kInteractive, 400);
  scheduler_->ChargeHost(*user, Priority::kInteractive, 0.1);
  load = scheduler_->Load();
  EXPECT_EQ(load.users[0].bytes, 400);
  EXPECT_NEAR(load.users[0].device_seconds, 0.25 * 2 / 3, 1e-9);
  EXPECT_EQ(load.users[0].budget_used, 0.8);

  RunAll();
  load = scheduler_->Load();
  EXPECT_EQ(load.users[0].memory_bytes, 0);
  EXPECT_EQ(load.users[1].memory_bytes, 0);
  EXPECT_EQ(load.oldest_wait, absl::ZeroDuration());
}

// A request that is added to waits anew, when nothing of it runs.
TEST_F(SharesTest, TheOldestWaitIsNotThatOfAnOldCall) {
  Start();
  const Submitted first = Submit(Named("u"));
  RunAll();
  clock_.Advance(100);
  FakeRunOptions options;
  options.model = &model_;
  std::vector<ScheduledRun> runs(1);
  runs[0].run =
      std::make_unique<FakeRun>(options, std::make_shared<testing::Outcome>());
  ASSERT_TRUE(scheduler_->Submit(first.request, std::move(runs)).ok());
  clock_.Advance(1);
  EXPECT_EQ(scheduler_->Load().oldest_wait, absl::Seconds(1));
  RunAll();
}

TEST_F(SharesTest, APassIsComparedWithWhatItCouldHaveHad) {
  Start();
  const auto most_rows = [this] {
    RunAll();
    return std::pair(observer_.rows_of_passes.back(),
                     observer_.most_rows_of_passes.back());
  };
  Request small, large;
  small.rows = 5;
  large.rows = 1000;
  // Of several users: what fits into a slice of 100 ms.
  Measure(0.001);
  Submit(Named("u"), small);
  Submit(Named("v"), small);
  EXPECT_EQ(most_rows(), (std::pair(10, 100)));
  // Of one user: SchedulerOptions::max_rows_per_flow.
  Submit(Named("u"), small);
  EXPECT_EQ(most_rows(), (std::pair(5, 512)));
  Submit(Named("u"), large);
  EXPECT_EQ(most_rows(), (std::pair(1000, 1000)));
}

}  // namespace
}  // namespace qk
