// A backend on which results take their time, as on a device that works beside
// the host: what is fetched arrives when somebody waits for the device, and not
// before.
#ifndef QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_
#define QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "tests/engine/forwarding_backend.h"

namespace qk::testing {

class DeferredBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  Arrival Fetch(const void* device, int64_t bytes) override {
    auto slot =
        std::make_shared<LateSlot>(ForwardingBackend::Fetch(device, bytes));
    on_their_way_.push_back(slot);
    ++fetches_;
    return Arrival(std::move(slot));
  }

  std::unique_ptr<Moment> Mark() override {
    return std::make_unique<LateMoment>(this, fetches_,
                                        ForwardingBackend::Mark());
  }

  absl::Status Synchronize() override {
    absl::Status status = ForwardingBackend::Synchronize();
    Arrive(fetches_);
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

  // Is reached once what was fetched before has arrived.
  class LateMoment : public Moment {
   public:
    LateMoment(DeferredBackend* backend, int64_t fetches,
               std::unique_ptr<Moment> moment)
        : backend_(backend), fetches_(fetches), moment_(std::move(moment)) {}
    bool reached() const override { return backend_->arrived_ >= fetches_; }
    void Wait() const override { backend_->Arrive(fetches_); }
    double SecondsSince(const Moment& earlier) const override {
      return moment_->SecondsSince(
          *static_cast<const LateMoment&>(earlier).moment_);
    }

   private:
    DeferredBackend* const backend_;
    const int64_t fetches_;
    const std::unique_ptr<Moment> moment_;
  };

  void Arrive(int64_t fetches) {
    for (; arrived_ < fetches; ++arrived_) {
      on_their_way_.front()->Arrive();
      on_their_way_.pop_front();
    }
  }

  // Results that nobody wants any more arrive, too.
  std::deque<std::shared_ptr<LateSlot>> on_their_way_;
  int64_t fetches_ = 0;  // so far
  int64_t arrived_ = 0;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_DEFERRED_BACKEND_H_
