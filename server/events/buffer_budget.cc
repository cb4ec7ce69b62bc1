#include "server/events/buffer_budget.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/common/text.h"

namespace qk {

void BufferLease::Release(int64_t bytes) {
  if (budget_ == nullptr) return;
  bytes = std::min(bytes, bytes_);
  bytes_ -= bytes;
  budget_->taken_.fetch_sub(bytes);
}

absl::StatusOr<BufferLease> BufferBudget::Take(int64_t bytes) {
  if (bytes > limit_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "results may need ", HumanBytes(bytes), " of stream buffers, limit ",
        HumanBytes(limit_), "; reduce layers/heads/positions"));
  }
  int64_t taken = taken_.load();
  while (taken + bytes <= limit_) {
    if (taken_.compare_exchange_weak(taken, taken + bytes)) {
      return BufferLease(this, bytes);
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "results may need ", HumanBytes(bytes), " of stream buffers, ",
      HumanBytes(limit_ - taken), " free"));
}

}  // namespace qk
