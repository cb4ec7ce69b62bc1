// A device that a test holds between two layers, and that records its passes.
#ifndef QKSCOPE_TESTS_SERVER_GATED_DEVICE_H_
#define QKSCOPE_TESTS_SERVER_GATED_DEVICE_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "server/schedule/engine_device.h"

namespace qk::testing {

// Holds passes before each step while the gate is shut. Thread-safe.
class Gate {
 public:
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  // Lets the first `passes` passes through even while the gate is shut.
  void LetThrough(size_t passes) {
    std::lock_guard<std::mutex> lock(mutex_);
    let_through_ = passes;
    changed_.notify_all();
  }
  // Lets this many more passes through even while the gate is shut.
  void LetThroughMore(size_t passes) {
    std::lock_guard<std::mutex> lock(mutex_);
    let_through_ = passes_.size() + passes;
    changed_.notify_all();
  }
  void Shut() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = false;
    arrived_ = false;
  }
  // Waits until a pass has reached the gate or has gone through it.
  void AwaitPass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return arrived_; });
  }
  // Waits until a pass is held at the gate.
  void AwaitHeld() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }
  bool holds() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }
  // Returns the number of steps that have begun.
  int steps() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return steps_;
  }
  // Returns the rows of each sequence of each pass that has started.
  std::vector<std::vector<int>> passes() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return passes_;
  }

 private:
  friend class GatedDevice;
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto may_go = [this] {
      return open_ || passes_.size() <= let_through_;
    };
    arrived_ = true;
    held_ = !may_go();
    changed_.notify_all();
    changed_.wait(lock, may_go);
    held_ = false;
    ++steps_;
  }
  void Start(std::vector<int> rows) {
    std::lock_guard<std::mutex> lock(mutex_);
    passes_.push_back(std::move(rows));
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  bool arrived_ = false;
  bool held_ = false;
  size_t let_through_ = 0;
  int steps_ = 0;
  std::vector<std::vector<int>> passes_;
};

class GatedDevice : public Device {
 public:
  explicit GatedDevice(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}

  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    std::vector<int> rows;
    for (const Sequence* sequence : sequences) rows.push_back(Rows(*sequence));
    gate_->Start(std::move(rows));
    return std::make_unique<GatedPass>(engine_.StartPass(model, sequences),
                                       gate_);
  }
  int Rows(const Sequence& sequence) const override {
    return engine_.Rows(sequence);
  }

 private:
  class GatedPass : public DevicePass {
   public:
    GatedPass(std::unique_ptr<DevicePass> pass, std::shared_ptr<Gate> gate)
        : pass_(std::move(pass)), gate_(std::move(gate)) {}
    void RunStep() override {
      gate_->Pass();
      pass_->RunStep();
    }
    void DropCancelled() override { pass_->DropCancelled(); }
    bool done() const override { return pass_->done(); }
    absl::Status Finish() override { return pass_->Finish(); }
    double Seconds() override { return pass_->Seconds(); }

   private:
    std::unique_ptr<DevicePass> pass_;
    std::shared_ptr<Gate> gate_;
  };

  EngineDevice engine_;
  std::shared_ptr<Gate> gate_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_GATED_DEVICE_H_
