#include "client/cpp/cancellation.h"

#include <utility>

namespace qk::client {

Cancellation::Registration::Registration(Cancellation* cancellation,
                                         std::function<void()> callback)
    : cancellation_(cancellation) {
  if (cancellation_ == nullptr) return;
  MutexLock lock(&cancellation_->mutex_);
  if (cancellation_->cancelled_) callback();
  id_ = cancellation_->next_id_++;
  cancellation_->callbacks_.emplace(id_, std::move(callback));
}

Cancellation::Registration::~Registration() {
  if (cancellation_ == nullptr) return;
  MutexLock lock(&cancellation_->mutex_);
  cancellation_->callbacks_.erase(id_);
}

void Cancellation::Cancel() {
  MutexLock lock(&mutex_);
  if (cancelled_) return;
  cancelled_ = true;
  for (const auto& [id, callback] : callbacks_) callback();
}

bool Cancellation::cancelled() const {
  MutexLock lock(&mutex_);
  return cancelled_;
}

}  // namespace qk::client
