#include "client/cpp/cancellation.h"

#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk::client {

struct Cancellation::State {
  Mutex mutex;
  bool cancelled ABSL_GUARDED_BY(mutex) = false;
  int next_id ABSL_GUARDED_BY(mutex) = 0;
  std::map<int, std::function<void()>> callbacks ABSL_GUARDED_BY(mutex);
};

Cancellation::Registration::Registration(Cancellation* cancellation,
                                         std::function<void()> callback)
    : cancellation_(cancellation) {
  if (cancellation_ == nullptr) return;
  State& state = *cancellation_->state_;
  MutexLock lock(&state.mutex);
  if (state.cancelled) callback();
  id_ = state.next_id++;
  state.callbacks.emplace(id_, std::move(callback));
}

Cancellation::Registration::~Registration() {
  if (cancellation_ == nullptr) return;
  State& state = *cancellation_->state_;
  MutexLock lock(&state.mutex);
  state.callbacks.erase(id_);
}

Cancellation::Cancellation() : state_(std::make_unique<State>()) {}

Cancellation::~Cancellation() = default;

void Cancellation::Cancel() {
  State& state = *state_;
  MutexLock lock(&state.mutex);
  if (state.cancelled) return;
  state.cancelled = true;
  for (const auto& [id, callback] : state.callbacks) callback();
}

bool Cancellation::cancelled() const {
  State& state = *state_;
  MutexLock lock(&state.mutex);
  return state.cancelled;
}

}  // namespace qk::client
