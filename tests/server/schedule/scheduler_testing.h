// A simulated device and runs, which a test can hold and inspect.
#ifndef QKSCOPE_TESTS_SERVER_SCHEDULE_SCHEDULER_TESTING_H_
#define QKSCOPE_TESTS_SERVER_SCHEDULE_SCHEDULER_TESTING_H_

#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/schedule/scheduler.h"

namespace qk {

// Stand-ins for the engine's classes, to which the scheduler only points.
class Model {};
class Sequence {
 public:
  std::string name;
  int rows = 0;
};

namespace testing {

inline constexpr int kLayers = 4;

// Holds its callers while the gate is shut.
class Gate {
 public:
  void Shut() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = false;
  }
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void AwaitArrivals(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int arrived_ = 0;
};

class FakeDevice : public Device {
 public:
  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    std::vector<std::string> names;
    for (const Sequence* sequence : sequences) names.push_back(sequence->name);
    std::lock_guard<std::mutex> lock(mutex_);
    passes_.push_back(names);
    models_.push_back(&model);
    return std::make_unique<FakePass>(this);
  }
  int Rows(const Sequence& sequence) const override { return sequence.rows; }

  std::vector<std::vector<std::string>> passes() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return passes_;
  }
  std::vector<const Model*> models() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return models_;
  }

  Gate gate;  // before each layer
  std::atomic<int> layers_run = 0;
  std::atomic<double> layer_seconds = 1e-6;
  absl::Status pass_status;

 private:
  class FakePass : public DevicePass {
   public:
    explicit FakePass(FakeDevice* device) : device_(device) {}
    void RunStep() override {
      device_->gate.Pass();
      ++device_->layers_run;
      ++layer_;
    }
    void DropCancelled() override {}
    bool done() const override { return layer_ == kLayers; }
    absl::Status Finish() override { return device_->pass_status; }
    double Seconds() override { return layer_ * device_->layer_seconds; }

   private:
    FakeDevice* device_;
    int layer_ = 0;
  };

  mutable std::mutex mutex_;
  std::vector<std::vector<std::string>> passes_;
  std::vector<const Model*> models_;
};

// Seconds of the processor that the calling thread has used.
inline double ThreadSeconds() {
  timespec used = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) +
         1e-9 * static_cast<double>(used.tv_nsec);
}

// How a run ended, as the test's thread sees it.
struct Outcome {
  std::mutex mutex;
  std::condition_variable changed;
  bool finished = false;
  bool destroyed = false;
  int passes = 0;
  absl::Status status;

  void AwaitDestroyed() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return destroyed; });
  }
};

struct FakeRunOptions {
  std::string name = "run";
  const Model* model = nullptr;
  std::vector<int> rows = {1};  // of each sequence
  int passes = 1;               // each sequence needs this many
  std::function<absl::Status()> reserve = [] { return absl::OkStatus(); };
  int tiles = 0;  // of a comparison after the first pass
  std::function<void()> on_tile = [] {};
};

class FakeRun : public Run {
 public:
  FakeRun(FakeRunOptions options, std::shared_ptr<Outcome> outcome)
      : options_(std::move(options)), outcome_(std::move(outcome)) {
    for (size_t i = 0; i < options_.rows.size(); ++i) {
      sequences_.push_back(std::make_unique<Sequence>());
      sequences_[i]->name = options_.rows.size() == 1
                                ? options_.name
                                : options_.name + std::to_string(i);
      sequences_[i]->rows = options_.rows[i];
      left_.push_back(options_.passes);
    }
  }
  ~FakeRun() override {
    std::lock_guard<std::mutex> lock(outcome_->mutex);
    outcome_->destroyed = true;
    outcome_->changed.notify_all();
  }

  absl::Status Reserve() override { return options_.reserve(); }
  const Model* next_model() const override {
    return finished_ ? nullptr : options_.model;
  }
  void AppendReady(const Model* model, std::vector<Sequence*>* out) override {
    if (model != options_.model || comparing()) return;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      if (left_[i] > 0) out->push_back(sequences_[i].get());
    }
  }
  void AfterPass(absl::Span<Sequence* const> ran, const absl::Status& status,
                 double seconds) override {
    {
      std::lock_guard<std::mutex> lock(outcome_->mutex);
      ++outcome_->passes;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      times_.prefill += seconds;
    }
    for (Sequence* sequence : ran) {
      for (size_t i = 0; i < sequences_.size(); ++i) {
        if (sequences_[i].get() == sequence) --left_[i];
      }
    }
    if (!std::exchange(compared_, true)) tiles_left_ = options_.tiles;
    FinishWhenDone(status);
  }
  bool finished() const override { return finished_; }
  bool comparing() const override { return tiles_left_ > 0; }
  void CompareTile() override {
    options_.on_tile();
    ++tiles_run_;
    if (--tiles_left_ == 0) FinishWhenDone(absl::OkStatus());
  }
  double compare_seconds() override { return 1e-6 * tiles_run_; }
  RunTimes times() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return times_;
  }
  void Cancel(absl::Status reason) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!reason_.ok()) return;
    reason_ = reason;
    cancelled_ = true;
  }
  bool cancelled() const override { return cancelled_; }
  void FinishCancelled() override {
    if (finished_) return;
    std::lock_guard<std::mutex> lock(mutex_);
    Finish(reason_);
  }
  const RunSpec& spec() const override { return spec_; }

 private:
  void FinishWhenDone(const absl::Status& status) {
    const bool done = std::all_of(left_.begin(), left_.end(),
                                  [](int left) { return left == 0; });
    if (!status.ok() || (done && !comparing())) Finish(status);
  }

  void Finish(const absl::Status& status) {
    finished_ = true;
    tiles_left_ = 0;
    std::lock_guard<std::mutex> lock(outcome_->mutex);
    EXPECT_FALSE(outcome_->finished);
    outcome_->finished = true;
    outcome_->status = status;
  }

  const FakeRunOptions options_;
  const std::shared_ptr<Outcome> outcome_;
  const RunSpec spec_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<int> left_;
  int tiles_left_ = 0;
  int tiles_run_ = 0;
  bool compared_ = false;
  bool finished_ = false;
  mutable std::mutex mutex_;
  absl::Status reason_;
  RunTimes times_;
  std::atomic<bool> cancelled_ = false;
};

class NullObserver : public SchedulerObserver {
 public:
  void OnPass(const PassReport& pass) override {
    rows_of_passes.push_back(pass.rows);
    most_rows_of_passes.push_back(pass.most_rows);
  }
  void OnQueue(int, int) override {}
  void OnCancelled(double seconds) override { cancelled.push_back(seconds); }

  std::vector<int> rows_of_passes;
  std::vector<int> most_rows_of_passes;
  std::vector<double> cancelled;  // seconds to idle
};

inline RequestInfo InfoFor(const std::string& alias, double weight = 1,
                           Priority priority = Priority::kInteractive) {
  User user;
  user.alias = alias;
  user.weight = weight;
  RequestInfo info;
  info.user = std::make_shared<User>(user);
  info.priority = priority;
  return info;
}

// A submitted request of one run.
struct Submitted {
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  std::shared_ptr<std::vector<int>> positions =
      std::make_shared<std::vector<int>>();
  std::shared_ptr<ScheduledRequest> request;
  absl::Status status;

  // Waits until the run is destroyed; returns how it ended.
  absl::Status Await() const {
    outcome->AwaitDestroyed();
    return outcome->status;
  }
};

}  // namespace testing
}  // namespace qk

#endif  // QKSCOPE_TESTS_SERVER_SCHEDULE_SCHEDULER_TESTING_H_
