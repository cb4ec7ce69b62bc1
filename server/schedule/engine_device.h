// The real device, which runs the engine's passes.
#ifndef QKSCOPE_SERVER_SCHEDULE_ENGINE_DEVICE_H_
#define QKSCOPE_SERVER_SCHEDULE_ENGINE_DEVICE_H_

#include <memory>

#include "engine/model/model.h"
#include "engine/pass.h"
#include "engine/sequence.h"
#include "server/schedule/device.h"

namespace qk {

class EngineDevice : public Device {
 public:
  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    return std::make_unique<EnginePass>(model, sequences);
  }
  int Rows(const Sequence& sequence) const override {
    return sequence.NextSpan().rows + sequence.TowerRows();
  }

 private:
  class EnginePass : public DevicePass {
   public:
    EnginePass(const Model& model, absl::Span<Sequence* const> sequences)
        : model_(model.shared_from_this()), pass_(model, sequences) {}
    void RunStep() override { pass_.RunStep(); }
    void DropCancelled() override { pass_.DropCancelled(); }
    bool done() const override { return pass_.done(); }
    absl::Status Finish() override { return pass_.Finish(); }
    double Seconds() override { return pass_.Seconds(); }

   private:
    // Keeps the model loaded: its last run may be cancelled, and the model
    // unloaded, before the pass ends.
    const std::shared_ptr<const Model> model_;
    Pass pass_;
  };
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ENGINE_DEVICE_H_
