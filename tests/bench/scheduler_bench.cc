// Measures the scheduler's own cost per pass while many requests wait, and how
// long observers wait for its lock: the passes of a simulated device take no
// time.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "server/schedule/scheduler.h"
#include "tests/server/schedule/scheduler_testing.h"

namespace qk {
namespace {

using testing::FakeDevice;
using testing::FakeRun;
using testing::FakeRunOptions;
using testing::InfoFor;
using testing::NullObserver;
using testing::Outcome;

constexpr int kUsers = 20;
constexpr int kPasses = 2000;
constexpr int kLooks = 200;

std::string UserOf(int request) {
  return "user" + std::to_string(request % kUsers);
}

void Submit(Scheduler* scheduler, const Model* model, const std::string& alias,
            int rows) {
  FakeRunOptions options;
  options.model = model;
  options.rows = {rows};
  std::vector<ScheduledRun> runs(1);
  runs[0].prefill_rows = rows;
  runs[0].run = std::make_unique<FakeRun>(options, std::make_shared<Outcome>());
  const absl::Status status =
      scheduler->Submit(std::make_shared<ScheduledRequest>(
                            InfoFor(alias), absl::InfiniteFuture(), [](int) {}),
                        std::move(runs));
  if (!status.ok()) std::abort();
}

// Returns the mean time of a call in microseconds.
template <typename Call>
double Microseconds(const Call& call) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kLooks; ++i) call();
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now() - start)
             .count() /
         kLooks;
}

void Measure(int queued, int rows) {
  SchedulerOptions options;
  options.own_thread = false;
  options.max_queued_requests = 1 << 20;
  Model model;
  FakeDevice device;
  NullObserver observer;
  SystemClock clock;
  Scheduler scheduler(options, &device, &observer, &clock);
  int user = 0;
  for (int i = 0; i < queued; ++i)
    Submit(&scheduler, &model, UserOf(user++), rows);
  double in_steps = 0;
  absl::Time wake;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    if (!scheduler.RunNextSlice(&wake)) std::abort();
    in_steps +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    while (scheduler.state().waiting_requests < queued) {
      Submit(&scheduler, &model, UserOf(user++), rows);
    }
  }
  std::printf(
      "%5d queued, runs of %3d rows: %.1f us a pass, state %.1f us, list %.1f "
      "us\n",
      queued, rows, in_steps / kPasses * 1e6,
      Microseconds([&] { scheduler.state(); }),
      Microseconds([&] { scheduler.List(); }));
}

// What a scrape of the metrics reads, while so many users have a request each.
void MeasureLoad(int users) {
  SchedulerOptions options;
  options.own_thread = false;
  options.max_queued_requests = 1 << 20;
  Model model;
  FakeDevice device;
  NullObserver observer;
  SystemClock clock;
  Scheduler scheduler(options, &device, &observer, &clock);
  for (int user = 0; user < users; ++user) {
    const std::string alias = "user" + std::to_string(user);
    Submit(&scheduler, &model, alias, 16);
    User with_budget = *InfoFor(alias).user;
    with_budget.budget.bytes_per_window = 1 << 20;
    scheduler.ChargeBytes(with_budget, Priority::kInteractive, 1000);
  }
  std::printf("%5d users: load %.1f us\n", users,
              Microseconds([&] { scheduler.Load(); }));
}

}  // namespace
}  // namespace qk

int main() {
  // A pass has one run, or as many as 512 rows hold.
  for (const int rows : {600, 16}) {
    for (const int queued : {1, 100, 1000}) qk::Measure(queued, rows);
  }
  for (const int users : {20, 500}) qk::MeasureLoad(users);
  return 0;
}
