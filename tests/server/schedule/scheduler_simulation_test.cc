// Tests the scheduler's promises over random traces of arrivals, with a
// simulated device whose clock advances only by work and idleness: no thread,
// no model. The device counts what each user got, not the scheduler.
#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/schedule/admission.h"
#include "server/schedule/scheduler.h"
#include "tests/server/schedule/scheduler_testing.h"

namespace qk {
namespace {

using testing::FakeRun;
using testing::FakeRunOptions;
using testing::NullObserver;
using testing::Outcome;

constexpr int kLayers = 10;
// A layer takes kLayerSeconds for the weights, plus kRowSeconds per row.
constexpr double kLayerSeconds = 0.002;
constexpr double kRowSeconds = 0.0002;
constexpr int kContext = 1000;
constexpr double kLongestLayer = kLayerSeconds + kContext * kRowSeconds;
constexpr double kLongestSlice = 0.2 + kLongestLayer;

class SimulatedClock : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() + absl::Seconds(seconds_);
  }
  double Seconds() const override { return seconds_; }
  void Advance(double seconds) { seconds_ += seconds; }
  void AdvanceTo(absl::Time time) {
    seconds_ =
        std::max(seconds_, absl::ToDoubleSeconds(time - absl::UnixEpoch()));
  }

 private:
  double seconds_ = 0;
};

// Sequences are named after their user.
class SimulatedDevice : public Device {
 public:
  explicit SimulatedDevice(SimulatedClock* clock) : clock_(clock) {}

  std::unique_ptr<DevicePass> StartPass(
      const Model&, absl::Span<Sequence* const> sequences) override {
    return std::make_unique<SimulatedPass>(this, sequences);
  }
  int Rows(const Sequence& sequence) const override { return sequence.rows; }

  struct Served {
    double time;
    double seconds;
  };
  double SecondsOf(const std::string& user, double from, double to) const {
    double sum = 0;
    const auto it = served_.find(user);
    if (it == served_.end()) return 0;
    for (const Served& served : it->second) {
      if (served.time > from && served.time <= to) sum += served.seconds;
    }
    return sum;
  }
  // The most that the user got in so many seconds.
  double MostIn(const std::string& user, double window) const {
    double most = 0, sum = 0;
    const auto it = served_.find(user);
    if (it == served_.end()) return 0;
    auto first = it->second.begin();
    for (const Served& served : it->second) {
      sum += served.seconds;
      while (first->time <= served.time - window) sum -= first++->seconds;
      most = std::max(most, sum);
    }
    return most;
  }
  double busy() const { return busy_; }

 private:
  class SimulatedPass : public DevicePass {
   public:
    SimulatedPass(SimulatedDevice* device,
                  absl::Span<Sequence* const> sequences)
        : device_(device) {
      for (const Sequence* sequence : sequences) {
        rows_[sequence->name] += sequence->rows;
        all_rows_ += sequence->rows;
      }
    }
    void RunStep() override {
      const double seconds = kLayerSeconds + all_rows_ * kRowSeconds;
      device_->clock_->Advance(seconds);
      device_->busy_ += seconds;
      seconds_ += seconds;
      for (const auto& [name, rows] : rows_) {
        device_->served_[name].push_back(
            {device_->clock_->Seconds(), seconds * rows / all_rows_});
      }
      ++layer_;
    }
    void DropCancelled() override {}
    bool done() const override { return layer_ == kLayers; }
    absl::Status Finish() override { return absl::OkStatus(); }
    double Seconds() override { return seconds_; }

   private:
    SimulatedDevice* device_;
    double seconds_ = 0;
    std::map<std::string, int> rows_;
    int all_rows_ = 0;
    int layer_ = 0;
  };

  SimulatedClock* const clock_;
  std::map<std::string, std::vector<Served>> served_;
  double busy_ = 0;
};

struct SimulatedUser {
  std::string name;
  double weight = 1;
  UserBudget budget;
  Priority priority = Priority::kInteractive;
};

struct Arrival {
  double time = 0;
  int user = 0;
  int rows = 1;
  int passes = 1;
};

struct Pending {
  Arrival arrival;
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  absl::Status submitted;
  double finished = -1;  // seconds
};

class Simulation {
 public:
  // `one_flow`: the scheduler sees everybody as the same user, so it is a plain
  // first-come, first-served queue: the negative control.
  Simulation(std::vector<SimulatedUser> users, bool one_flow)
      : users_(std::move(users)), one_flow_(one_flow) {
    SchedulerOptions options;
    options.own_thread = false;
    options.max_queued_requests = 1 << 20;
    scheduler_ =
        std::make_unique<Scheduler>(options, &device_, &observer_, &clock_);
  }

  // Runs until all arrivals are done.
  void Run(const std::vector<Arrival>& arrivals) {
    std::deque<Arrival> left(arrivals.begin(), arrivals.end());
    absl::Time wake;
    while (!left.empty() || unfinished_ > 0) {
      while (!left.empty() && left.front().time <= clock_.Seconds() + 1e-6) {
        Submit(left.front());
        left.pop_front();
      }
      const double before = clock_.Seconds();
      if (scheduler_->RunNextSlice(&wake)) {
        NoteFinished();
        longest_slice_ = std::max(longest_slice_, clock_.Seconds() - before);
        continue;
      }
      NoteFinished();
      if (left.empty() && unfinished_ == 0) break;  // the last was refused
      // The scheduler is work-conserving: nothing ran, so nothing can run.
      EXPECT_TRUE(NothingCanRun()) << "idle at " << clock_.Seconds();
      absl::Time next =
          left.empty() ? absl::InfiniteFuture()
                       : absl::UnixEpoch() + absl::Seconds(left.front().time);
      next = std::min(next, wake);
      ASSERT_LT(next, absl::InfiniteFuture())
          << unfinished_ << " requests are stuck, one of "
          << users_[all_[open_.front()].arrival.user].name;
      clock_.AdvanceTo(next);
    }
  }

  // Keeps every user's queue full for this time.
  void RunSaturated(double seconds, std::mt19937* random) {
    absl::Time wake;
    while (clock_.Seconds() < seconds) {
      for (size_t user = 0; user < users_.size(); ++user) {
        while (unfinished_of_[user] < 4) {
          Submit(RandomArrival(static_cast<int>(user), random));
        }
      }
      ASSERT_TRUE(scheduler_->RunNextSlice(&wake));
      NoteFinished();
    }
  }

  static Arrival RandomArrival(int user, std::mt19937* random) {
    Arrival arrival;
    arrival.user = user;
    switch ((*random)() % 3) {
      case 0:  // a short prompt
        arrival.rows = 1 + static_cast<int>((*random)() % 64);
        break;
      case 1:  // decode
        arrival.rows = 1;
        arrival.passes = 1 + static_cast<int>((*random)() % 20);
        break;
      default:
        arrival.rows = 1 + static_cast<int>((*random)() % kContext);
    }
    return arrival;
  }

  const std::vector<Pending>& all() const { return all_; }
  const SimulatedDevice& device() const { return device_; }
  double now() const { return clock_.Seconds(); }
  double longest_slice() const { return longest_slice_; }
  int budget_violations() const { return budget_violations_; }
  int ended_by_budget() const { return ended_by_budget_; }

 private:
  void Submit(const Arrival& arrival) {
    const SimulatedUser& from = users_[arrival.user];
    RequestInfo info;
    auto user = std::make_shared<User>();
    user->alias = one_flow_ ? "everybody" : from.name;
    user->weight = one_flow_ ? 1 : from.weight;
    if (!one_flow_) user->budget = from.budget;
    info.user = user;
    info.priority = from.priority;
    Pending& pending = all_.emplace_back();
    pending.arrival = arrival;
    pending.arrival.time = clock_.Seconds();
    FakeRunOptions options;
    options.name = from.name;
    options.model = &model_;
    options.rows = {arrival.rows};
    options.passes = arrival.passes;
    options.reserve = [this, from] {
      const double now = clock_.Seconds();
      const UserBudget& budget = from.budget;
      if (budget.device_ms_per_window > 0 &&
          device_.SecondsOf(from.name, now - budget.window_s, now) * 1e3 >=
              budget.device_ms_per_window) {
        ++budget_violations_;
      }
      return absl::OkStatus();
    };
    std::vector<ScheduledRun> runs(1);
    runs[0].prefill_rows = arrival.rows;
    runs[0].run = std::make_unique<FakeRun>(options, pending.outcome);
    pending.submitted =
        scheduler_->Submit(std::make_shared<ScheduledRequest>(
                               info, absl::InfiniteFuture(), [](int) {}),
                           std::move(runs));
    if (!pending.submitted.ok()) {
      EXPECT_TRUE(ScheduleRefusalOf(pending.submitted).has_value())
          << pending.submitted;
      return;
    }
    open_.push_back(all_.size() - 1);
    ++unfinished_;
    ++unfinished_of_[arrival.user];
  }

  void NoteFinished() {
    std::erase_if(open_, [this](size_t i) {
      Pending& pending = all_[i];
      if (!pending.outcome->finished) return false;
      if (pending.outcome->status.ok()) {
        EXPECT_EQ(pending.outcome->passes, pending.arrival.passes);
      } else {
        EXPECT_TRUE(ScheduleRefusalOf(pending.outcome->status).has_value())
            << pending.outcome->status;
        ++ended_by_budget_;
      }
      pending.finished = clock_.Seconds();
      --unfinished_;
      --unfinished_of_[pending.arrival.user];
      return true;
    });
  }

  // Returns whether each waiting user has used up its budget on the device.
  bool NothingCanRun() {
    for (size_t i : open_) {
      const SimulatedUser& user = users_[all_[i].arrival.user];
      const double window = static_cast<double>(user.budget.window_s);
      // The scheduler counts in sixteenths of the window, and what a slice used
      // when the slice ends.
      const double used = device_.SecondsOf(
          user.name, now() - window * 17 / 16 - kLongestSlice, now());
      if (one_flow_ || user.budget.device_ms_per_window == 0 ||
          used * 1e3 < user.budget.device_ms_per_window) {
        return false;
      }
    }
    return true;
  }

  const std::vector<SimulatedUser> users_;
  const bool one_flow_;
  Model model_;
  SimulatedClock clock_;
  SimulatedDevice device_{&clock_};
  NullObserver observer_;
  std::vector<Pending> all_;
  std::vector<size_t> open_;
  std::map<int, int> unfinished_of_;
  int unfinished_ = 0;
  int budget_violations_ = 0;
  int ended_by_budget_ = 0;
  double longest_slice_ = 0;
  std::unique_ptr<Scheduler> scheduler_;
};

// Returns the seconds that a request takes alone.
double Alone(const Arrival& arrival) {
  return arrival.passes * kLayers *
         (kLayerSeconds + arrival.rows * kRowSeconds);
}

std::vector<SimulatedUser> RandomUsers(std::mt19937* random) {
  std::vector<SimulatedUser> users(2 + (*random)() % 4);
  for (size_t i = 0; i < users.size(); ++i) {
    users[i].name = std::string(1, static_cast<char>('a' + i));
    users[i].weight = 1 << (*random)() % 3;
  }
  return users;
}

std::vector<Arrival> RandomTrace(size_t users, int length, double load,
                                 std::mt19937* random) {
  std::vector<Arrival> out;
  double time = 0;
  for (int i = 0; i < length; ++i) {
    Arrival arrival = Simulation::RandomArrival(
        static_cast<int>((*random)() % users), random);
    // Arrivals come in bursts, with gaps in which the device may catch up.
    if ((*random)() % 4 == 0) time += Alone(arrival) / load * 8;
    arrival.time = time;
    out.push_back(arrival);
  }
  return out;
}

// Returns by how many seconds the worst request finished later than its user's
// share allows: with its weight's part of the device to itself, the user would
// have finished everything that it had sent by then.
double WorstExcess(const Simulation& simulation,
                   const std::vector<SimulatedUser>& users) {
  double all_weights = 0;
  for (const SimulatedUser& user : users) all_weights += user.weight;
  double worst = 0;
  for (size_t user = 0; user < users.size(); ++user) {
    const double share = users[user].weight / all_weights;
    std::vector<double> arrived, through;
    for (const Pending& pending : simulation.all()) {
      if (pending.arrival.user != static_cast<int>(user)) continue;
      const double start =
          std::max(through.empty() ? 0 : through.back(), pending.arrival.time);
      arrived.push_back(pending.arrival.time);
      through.push_back(start + Alone(pending.arrival) / share);
    }
    for (const Pending& pending : simulation.all()) {
      if (pending.arrival.user != static_cast<int>(user)) continue;
      const auto sent =
          std::upper_bound(arrived.begin(), arrived.end(), pending.finished) -
          arrived.begin();
      worst = std::max(worst, pending.finished - through[sent - 1]);
    }
  }
  return worst;
}

// Some slices of others may come first, each too long by up to a layer.
constexpr double kGrace = 3 * (0.1 + kLongestLayer);

TEST(SchedulerSimulationTest, NobodyStarvesInTenThousandTraces) {
  double worst = 0, worst_in_one_queue = 0, longest_slice = 0;
  for (int seed = 0; seed < 10'000; ++seed) {
    std::mt19937 random(seed);
    const std::vector<SimulatedUser> users = RandomUsers(&random);
    const std::vector<Arrival> trace =
        RandomTrace(users.size(), 24, 0.5 + (seed % 4) * 0.5, &random);
    Simulation simulation(users, /*one_flow=*/false);
    simulation.Run(trace);
    for (const Pending& pending : simulation.all()) {
      ASSERT_TRUE(pending.submitted.ok());
      ASSERT_GE(pending.finished, 0) << "seed " << seed;
    }
    worst = std::max(worst, WorstExcess(simulation, users));
    longest_slice = std::max(longest_slice, simulation.longest_slice());
    if (::testing::Test::HasFailure()) FAIL() << "seed " << seed;
    if (seed % 10 != 0) continue;
    Simulation control(users, /*one_flow=*/true);
    control.Run(trace);
    worst_in_one_queue =
        std::max(worst_in_one_queue, WorstExcess(control, users));
  }
  EXPECT_LT(worst, kGrace);
  // A slice may be too long by the layer that it ends in.
  EXPECT_LE(longest_slice, 0.1 + kLongestLayer + 1e-9);
  RecordProperty("worst_ms", static_cast<int>(worst * 1e3));
  RecordProperty("control_ms", static_cast<int>(worst_in_one_queue * 1e3));
  EXPECT_GT(worst_in_one_queue, kGrace) << "the check cannot fail";
}

// Returns the largest |share - fair share| / fair share over users.
double ShareError(const std::vector<SimulatedUser>& users, bool one_flow,
                  std::mt19937* random) {
  constexpr double kSeconds = 60;
  Simulation simulation(users, one_flow);
  simulation.RunSaturated(kSeconds, random);
  double weights = 0, served = 0;
  for (const SimulatedUser& user : users) {
    weights +=
        user.weight * (user.priority == Priority::kBatch ? kBatchShare : 1.0);
    served += simulation.device().SecondsOf(user.name, 0, kSeconds * 2);
  }
  double error = 0;
  for (const SimulatedUser& user : users) {
    const double fair =
        user.weight * (user.priority == Priority::kBatch ? kBatchShare : 1.0) /
        weights;
    const double got =
        simulation.device().SecondsOf(user.name, 0, kSeconds * 2) / served;
    // One user gets the slice in which the time ends.
    const double slice = (0.1 + kLongestLayer) / kSeconds;
    EXPECT_TRUE(std::isfinite(got)) << user.name;
    error = std::max(error, (std::abs(got - fair) - slice) / fair);
  }
  EXPECT_NEAR(simulation.device().busy(), simulation.now(), 1e-6)
      << "the device stood still";
  return error;
}

TEST(SchedulerSimulationTest, SharesFollowWeightsWithinFivePercent) {
  int control_failed = 0;
  for (int seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    std::vector<SimulatedUser> users = RandomUsers(&random);
    users[0].weight = 1;
    users[1].weight = 4;  // so that equal shares are wrong
    EXPECT_LE(ShareError(users, false, &random), 0.05) << "seed " << seed;
    control_failed += ShareError(users, true, &random) > 0.05;
  }
  EXPECT_EQ(control_failed, 50);
}

TEST(SchedulerSimulationTest, BatchWorkGivesWayButGoesOn) {
  std::mt19937 random(1);
  std::vector<SimulatedUser> users(2);
  users[0].name = "interactive";
  users[1].name = "batch";
  users[1].priority = Priority::kBatch;
  EXPECT_LE(ShareError(users, false, &random), 0.05);
}

TEST(SchedulerSimulationTest, BatchWorkDoesNotComeFirstForHavingPaused) {
  std::vector<SimulatedUser> users(2);
  users[0].name = "batch";
  users[0].priority = Priority::kBatch;
  users[1].name = "interactive";
  std::vector<Arrival> arrivals;
  for (int i = 0; i < 10; ++i) {
    for (int user = 0; user < 2; ++user) {  // in this order
      // Each request is done before batch work has had its eighth.
      arrivals.push_back({.time = 10.0 * i, .user = user, .rows = 400});
    }
  }
  Simulation simulation(users, false);
  simulation.Run(arrivals);
  int looked_at = 0;
  for (const Pending& pending : simulation.all()) {
    // At first nobody knows what a row costs.
    if (pending.arrival.user == 0 || pending.arrival.time == 0) continue;
    ++looked_at;
    ASSERT_GE(pending.finished, pending.arrival.time);
    EXPECT_LE(pending.finished - pending.arrival.time,
              Alone(pending.arrival) + 1e-9)
        << "arrived at " << pending.arrival.time;
  }
  EXPECT_EQ(looked_at, 9);
}

TEST(SchedulerSimulationTest, OneUserAloneGetsEverything) {
  std::mt19937 random(2);
  std::vector<SimulatedUser> users(1);
  users[0].name = "a";
  users[0].priority = Priority::kBatch;
  Simulation simulation(users, false);
  simulation.RunSaturated(10, &random);
  EXPECT_NEAR(simulation.device().SecondsOf("a", 0, 100), simulation.now(),
              1e-6);
}

TEST(SchedulerSimulationTest, R27_BudgetsAreExceededByOnePassAtMost) {
  int refused = 0, ended = 0;
  double most = 0;
  for (int seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    std::vector<SimulatedUser> users = RandomUsers(&random);
    users[0].budget.device_ms_per_window = 2000;
    users[0].budget.window_s = 16;
    Simulation simulation(users, false);
    simulation.Run(RandomTrace(users.size(), 60, 0.5, &random));
    EXPECT_EQ(simulation.budget_violations(), 0) << "seed " << seed;
    for (const Pending& pending : simulation.all()) {
      refused += !pending.submitted.ok();
    }
    ended += simulation.ended_by_budget();
    most = std::max(most, simulation.device().MostIn(users[0].name, 16));
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(ended, 0);
  const double longest_pass =
      kLayers * (kLayerSeconds + kContext * kRowSeconds);
  EXPECT_GT(most, 1.9);
  EXPECT_LE(most, 2 + longest_pass);
}

// Five users send ten long prompts each at `time`; the sixth user is "short".
struct Crowd {
  explicit Crowd(double time) : users(6) {
    for (int user = 0; user < 5; ++user) {
      users[user].name = std::string("long") + static_cast<char>('a' + user);
      for (int i = 0; i < 10; ++i) {
        arrivals.push_back({.time = time, .user = user, .rows = kContext});
      }
    }
    users[kShort].name = "short";
  }
  // A request takes a pass and its comparison.
  void Ask(double time) {
    arrivals.push_back({.time = time, .user = kShort, .rows = 20, .passes = 2});
  }

  static constexpr int kShort = 5;
  std::vector<SimulatedUser> users;
  std::vector<Arrival> arrivals;
};

void ExpectOneSliceOfOthersAtMost(const Simulation& simulation, int user) {
  int looked_at = 0;
  for (const Pending& pending : simulation.all()) {
    if (pending.arrival.user != user) continue;
    ++looked_at;
    ASSERT_GE(pending.finished, pending.arrival.time);
    EXPECT_LE(pending.finished - pending.arrival.time,
              Alone(pending.arrival) + kLongestLayer + 0.1 + 1e-9)
        << "arrived at " << pending.arrival.time;
  }
  EXPECT_GE(looked_at, 5);
}

TEST(SchedulerSimulationTest, AShortRequestIsNotTornUpAmongLongOnes) {
  Crowd crowd(0);
  for (int i = 0; i < 40; ++i) crowd.Ask(1 + 1.7 * i);
  Simulation simulation(crowd.users, false);
  simulation.Run(crowd.arrivals);
  ExpectOneSliceOfOthersAtMost(simulation, Crowd::kShort);
}

// All users have had the same, so all still have a turn to come; a user who had
// the device alone before owes nobody anything for it.
TEST(SchedulerSimulationTest, AShortRequestDoesNotWaitForEverybodyAtTheStart) {
  constexpr double kStart = 5;
  Crowd crowd(kStart);
  crowd.Ask(kStart);
  crowd.Ask(kStart + 1.2);                          // everybody has had a turn
  for (int i = 0; i < 10; ++i) crowd.Ask(0.3 * i);  // alone
  std::stable_sort(
      crowd.arrivals.begin(), crowd.arrivals.end(),
      [](const Arrival& a, const Arrival& b) { return a.time < b.time; });
  Simulation simulation(crowd.users, false);
  simulation.Run(crowd.arrivals);
  ExpectOneSliceOfOthersAtMost(simulation, Crowd::kShort);
}

TEST(SchedulerSimulationTest, AShortRequestWaitsForOneSliceOfALongOne) {
  std::vector<SimulatedUser> users(2);
  users[0].name = "long";
  users[1].name = "short";
  Simulation simulation(users, false);
  std::vector<Arrival> arrivals = {{.user = 0, .rows = kContext}};
  for (int i = 0; i < 5; ++i) {
    arrivals.push_back({.time = 0.05 + 0.3 * i, .user = 1, .rows = 20});
  }
  simulation.Run(arrivals);
  ExpectOneSliceOfOthersAtMost(simulation, 1);
}

}  // namespace
}  // namespace qk
