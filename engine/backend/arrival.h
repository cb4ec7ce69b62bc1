// A result on its way from the device to the host.
#ifndef QKSCOPE_ENGINE_BACKEND_ARRIVAL_H_
#define QKSCOPE_ENGINE_BACKEND_ARRIVAL_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/types/span.h"
#include "engine/base/check.h"

namespace qk {

// What Backend::Fetch returns. The memory that the bytes arrive in is the
// backend's: it stays until both the copy has ended and every Arrival of it is
// gone, so whoever asked may go away at any time. Copies share the bytes.
class Arrival {
 public:
  // A backend's memory for one result. `bytes` is called once it is here.
  class Slot {
   public:
    virtual ~Slot() = default;
    virtual bool here() const = 0;
    virtual absl::Span<const uint8_t> bytes() const = 0;
  };

  Arrival() = default;  // never here
  explicit Arrival(std::shared_ptr<const Slot> slot) : slot_(std::move(slot)) {}

  // Whether the bytes have arrived. Waits for nothing. After Synchronize has
  // returned OK, all fetched before are here; what was fetched after a failure
  // never is.
  bool here() const { return slot_ != nullptr && slot_->here(); }
  // The bytes, aligned for any plain type. Requires here().
  absl::Span<const uint8_t> bytes() const {
    QK_CHECK(here());
    return slot_->bytes();
  }
  template <typename T>
  absl::Span<const T> as() const {
    return absl::MakeConstSpan(reinterpret_cast<const T*>(bytes().data()),
                               bytes().size() / sizeof(T));
  }

 private:
  std::shared_ptr<const Slot> slot_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_ARRIVAL_H_
