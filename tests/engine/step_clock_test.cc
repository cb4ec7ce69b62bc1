// The host is at most two steps ahead of the device, and a step's time is the
// device's.
#include "engine/step_clock.h"

#include <algorithm>
#include <memory>

#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {
namespace {

// Moment i comes at i^2 seconds, and is reached once somebody has waited for it
// or for a later one.
class SlowBackend : public ForwardingBackend {
 public:
  SlowBackend() : ForwardingBackend(MakeTestBackend(1)) {}
  std::unique_ptr<Moment> Mark() override {
    return std::make_unique<SlowMoment>(&reached_, ++marks_);
  }
  int marks() const { return marks_; }
  int reached() const { return reached_; }
  void Reach(int moment) { reached_ = moment; }

 private:
  class SlowMoment : public Moment {
   public:
    SlowMoment(int* reached, int at) : reached_(reached), at_(at) {}
    bool reached() const override { return *reached_ >= at_; }
    void Wait() const override { *reached_ = std::max(*reached_, at_); }
    double SecondsSince(const Moment& earlier) const override {
      const auto& e = static_cast<const SlowMoment&>(earlier);
      EXPECT_TRUE(reached() && e.reached());
      return at_ * at_ - e.at_ * e.at_;
    }

   private:
    int* const reached_;
    const int at_;
  };

  int marks_ = 0;
  int reached_ = 0;
};

TEST(StepClockTest, TheHostIsAtMostTwoStepsAhead) {
  SlowBackend backend;
  StepClock clock(&backend);
  for (int step = 1; step <= 6; ++step) {
    clock.Begin();
    clock.Begin();  // goes on
    clock.End();
    EXPECT_EQ(backend.marks(), 2 * step);
    // The end of step i is moment 2 i.
    EXPECT_EQ(backend.reached(), step <= 2 ? 0 : 2 * (step - 2));
  }
}

TEST(StepClockTest, CountsTheStepsThatTheDeviceHasDone) {
  SlowBackend backend;
  StepClock clock(&backend);
  for (int step = 0; step < 2; ++step) {
    clock.Begin();
    clock.End();
  }
  EXPECT_EQ(clock.Seconds(), 0);
  backend.Reach(2);
  EXPECT_EQ(clock.Seconds(), 4 - 1);
  backend.Reach(3);  // within the second step
  EXPECT_EQ(clock.Seconds(), 4 - 1);
  backend.Reach(4);
  // What others do between two steps, from moment 2 to 3, does not count.
  EXPECT_EQ(clock.Seconds(), (4 - 1) + (16 - 9));
}

}  // namespace
}  // namespace qk::testing
