// Tests the pool that does the host's part of calls. Also built with
// ThreadSanitizer.
#include "server/schedule/host_work.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/schedule/admission.h"
#include "server/schedule/scheduler.h"
#include "tests/server/schedule/scheduler_testing.h"

namespace qk {
namespace {

using testing::FakeDevice;
using testing::Gate;
using testing::NullObserver;

constexpr int64_t kSmall = 100;
constexpr int64_t kLarge = 1 << 20;

// A turn is over whenever somebody looks.
class FastClock : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixSeconds(1'000'000); }
  double Seconds() const override { return 1.0 * ++looks_; }

 private:
  mutable std::atomic<int64_t> looks_ = 0;
};

std::shared_ptr<const User> Named(const std::string& alias,
                                  const UserBudget& budget = {}) {
  User user;
  user.alias = alias;
  user.budget = budget;
  return std::make_shared<const User>(user);
}

class HostWorkTest : public ::testing::Test {
 protected:
  HostWorkTest() {
    SchedulerOptions options;
    options.own_thread = false;
    scheduler_ =
        std::make_unique<Scheduler>(options, &device_, &observer_, &clock_);
  }
  ~HostWorkTest() override { work_.reset(); }

  void Start(HostWorkOptions options) {
    work_ = std::make_unique<HostWork>(options, &clock_, scheduler_.get());
  }

  absl::Status Post(const std::shared_ptr<const User>& user, int64_t bytes,
                    std::function<void()> task, bool needs_budget = false) {
    return work_->Post(user, bytes, needs_budget,
                       [task = std::move(task)](const absl::Status& may) {
                         if (may.ok()) task();
                         return HostWork::Then();
                       });
  }
  // Appends `name` to the order when it runs.
  std::function<void()> Note(const std::string& name) {
    return [this, name] {
      MutexLock lock(&mutex_);
      order_.push_back(name);
      changed_.NotifyAll();
    };
  }
  std::vector<std::string> AwaitOrder(size_t count) {
    MutexLock lock(&mutex_);
    changed_.Wait(&mutex_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return order_.size() >= count;
    });
    return order_;
  }

  FakeDevice device_;
  NullObserver observer_;
  FastClock clock_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<HostWork> work_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> order_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(HostWorkTest, R24_UsersTakeTurns) {
  Start({.places = 1});
  Gate gate;
  gate.Shut();
  const auto a = Named("a"), b = Named("b");
  ASSERT_TRUE(Post(a, kSmall, [&] { gate.Pass(); }).ok());
  gate.AwaitArrivals(1);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Post(a, kSmall, Note("a")).ok());
  ASSERT_TRUE(Post(b, kSmall, Note("b")).ok());
  gate.Open();
  const std::vector<std::string> order = AwaitOrder(6);
  // Whoever comes fresh goes before all that a flood has sent.
  EXPECT_EQ(order[0], "b");
  work_.reset();  // its tasks use what is above
}

TEST_F(HostWorkTest, R24_OneUserLeavesAPlace) {
  Start({.places = 2});
  Gate gate;
  gate.Shut();
  const auto a = Named("a"), b = Named("b");
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(Post(a, kSmall, [&] { gate.Pass(); }).ok());
  }
  gate.AwaitArrivals(1);
  ASSERT_TRUE(Post(b, kSmall, Note("b")).ok());
  EXPECT_EQ(AwaitOrder(1), std::vector<std::string>{"b"});
  gate.Open();
  work_.reset();  // its tasks use what is above
}

// A long task is parked for another user's, and for a short one of its own
// user, even if there is a single place.
TEST_F(HostWorkTest, R24_LongWorkIsParked) {
  Start({.places = 1});
  const auto a = Named("a"), b = Named("b");
  std::atomic<bool> passed = false;
  Gate begun;
  begun.Shut();
  ASSERT_TRUE(Post(a, kLarge, [&] {
                begun.Pass();
                while (!passed) MayPark(kManySteps);
                Note("long")();
              }).ok());
  begun.AwaitArrivals(1);
  ASSERT_TRUE(Post(b, kSmall, Note("b")).ok());
  ASSERT_TRUE(Post(a, kSmall, [&, note = Note("short")] {
                note();
                passed = true;
              }).ok());
  begun.Open();
  const std::vector<std::string> order = AwaitOrder(3);
  EXPECT_EQ(order.back(), "long");
  work_.reset();  // its tasks use what is above
}

TEST_F(HostWorkTest, R24_BytesOfMessagesAreBounded) {
  Start({.places = 1, .max_waiting_bytes = 10 * kLarge});
  Gate gate;
  gate.Shut();
  const auto a = Named("a"), b = Named("b");
  int posted = 0;
  absl::Status refused;
  while (refused.ok() && posted < 100) {
    refused = Post(a, kLarge, [&] { gate.Pass(); });
    posted += refused.ok();
  }
  EXPECT_EQ(posted, 7);  // three fourths of ten
  const auto why = ScheduleRefusalOf(refused);
  ASSERT_TRUE(why.has_value()) << refused;
  EXPECT_EQ(why->by, RefusedBy::kQueue);
  EXPECT_GT(why->retry, absl::ZeroDuration());
  EXPECT_LT(why->retry, absl::Minutes(1));
  // There is room for others.
  EXPECT_TRUE(Post(b, kSmall, Note("b")).ok());
  gate.Open();
  AwaitOrder(1);
  work_.reset();  // its tasks use what is above
}

TEST_F(HostWorkTest, R24_LargeMessagesAreReadAFewAtATime) {
  Start({.places = 4, .max_open_bytes = 4 * kLarge});
  Gate gate;
  gate.Shut();
  std::atomic<int> open = 0, most = 0;
  Gate done;
  done.Shut();
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(
        Post(Named(std::string(1, static_cast<char>('a' + i))), 2 * kLarge,
             [&] {
               const int now = ++open;
               int seen = most;
               while (seen < now && !most.compare_exchange_weak(seen, now)) {
               }
               gate.Pass();
               --open;
               Note("done")();
             })
            .ok());
  }
  gate.AwaitArrivals(2);
  gate.Open();
  AwaitOrder(12);
  EXPECT_EQ(most, 2);
  work_.reset();  // its tasks use what is above
}

TEST_F(HostWorkTest, R24_WorkIsCharged) {
  Start({});
  UserBudget budget;
  budget.device_ms_per_window = 1;
  const auto a = Named("a", budget);
  const auto burn = [] {
    const double begin = testing::ThreadSeconds();
    while (testing::ThreadSeconds() - begin < 0.003) {
    }
  };
  ASSERT_TRUE(Post(a, kSmall, burn, true).ok());
  // The charge is made before the work's `then`, which nobody waits for here.
  while (scheduler_->CheckBudgetLeft(*a).ok()) {
  }
  const absl::Status refused = Post(
      a, kSmall, [] {}, true);
  const auto why = ScheduleRefusalOf(refused);
  ASSERT_TRUE(why.has_value()) << refused;
  EXPECT_EQ(why->by, RefusedBy::kBudget);
  // What needs no budget goes on.
  EXPECT_TRUE(Post(a, kSmall, Note("free"), false).ok());
  AwaitOrder(1);
  const std::vector<UserState> users = scheduler_->Users();
  ASSERT_EQ(users.size(), 1u);
  EXPECT_GE(users[0].host_seconds, 0.003);
  EXPECT_GE(users[0].device_seconds, users[0].host_seconds);
}

// Calls that come together do not each find the budget untouched.
TEST_F(HostWorkTest, R27_TheBudgetIsLookedAtAgainBeforeTheWork) {
  Start({.places = 1});
  UserBudget budget;
  budget.device_ms_per_window = 1;
  const auto a = Named("a", budget);
  Gate gate;
  gate.Shut();
  ASSERT_TRUE(Post(Named("b"), kSmall, [&] { gate.Pass(); }).ok());
  gate.AwaitArrivals(1);
  std::atomic<int> done = 0, refused = 0;
  for (int i = 0; i < 16; ++i) {
    ASSERT_TRUE(work_
                    ->Post(a, kSmall, true,
                           [&](const absl::Status& may) {
                             if (may.ok()) {
                               const double begin = testing::ThreadSeconds();
                               while (testing::ThreadSeconds() - begin <
                                      0.003) {
                               }
                               ++done;
                             } else {
                               ++refused;
                             }
                             return HostWork::Then(Note("a"));
                           })
                    .ok());
  }
  gate.Open();
  AwaitOrder(16);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(refused, 15);
  work_.reset();  // its tasks use what is above
}

TEST_F(HostWorkTest, ThreadsAreBoundedAndWhatIsLeftRuns) {
  Start({.places = 3, .max_threads = 5});
  std::atomic<int> done = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto user = Named(std::string(1, static_cast<char>('a' + i % 20)));
    ASSERT_TRUE(Post(user, kSmall, [&] {
                  for (int k = 0; k < 4; ++k) MayPark(kManySteps);
                  ++done;
                }).ok());
    EXPECT_LE(work_->threads(), 5);
  }
  work_.reset();
  EXPECT_EQ(done, 2000);
}

}  // namespace
}  // namespace qk
