// A backend on which results take their time, as on a device that works beside
// the host: what is fetched arrives at the next Synchronize, and not before.
#ifndef QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_
#define QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_

#include <memory>
#include <utility>
#include <vector>

#include "tests/engine/forwarding_backend.h"

namespace qk::testing {

class DeferredBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  Arrival Fetch(const void* device, int64_t bytes) override {
    auto slot =
        std::make_shared<LateSlot>(ForwardingBackend::Fetch(device, bytes));
    on_their_way_.push_back(slot);
    return Arrival(std::move(slot));
  }

  absl::Status Synchronize() override {
    absl::Status status = ForwardingBackend::Synchronize();
    for (const auto& slot : on_their_way_) slot->Arrive();
    on_their_way_.clear();
    return status;
  }

 private:
  class LateSlot : public Arrival::Slot {
   public:
    explicit LateSlot(Arrival arrival) : arrival_(std::move(arrival)) {}
    void Arrive() { arrived_ = arrival_.here(); }
    bool here() const override { return arrived_; }
    absl::Span<const uint8_t> bytes() const override {
      return arrival_.bytes();
    }

   private:
    const Arrival arrival_;
    bool arrived_ = false;
  };

  // Results that nobody wants any more arrive, too.
  std::vector<std::shared_ptr<LateSlot>> on_their_way_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_
