// Models with a run that waits for memory. Until that run is admitted, no other
// run of its model is, because small runs could overtake it forever.
#ifndef QKSCOPE_SERVER_SCHEDULE_BLOCKED_MODELS_H_
#define QKSCOPE_SERVER_SCHEDULE_BLOCKED_MODELS_H_

#include <cstdint>
#include <map>

namespace qk {

class Model;
struct QueuedRequest;

// Not thread-safe.
class BlockedModels {
 public:
  // Whether the request's next run, of `model`, may ask for memory.
  bool MayAdmit(const QueuedRequest* request, const Model* model);
  // Call if there was no memory for the request's run.
  void Block(const QueuedRequest* request, const Model* model) {
    blocked_[model] = {request, runs_ended_};
  }
  void Unblock(const Model* model) { blocked_.erase(model); }
  // Call before the request is erased.
  void Forget(const QueuedRequest* request);
  // Call when a run has freed its memory.
  void RunEnded() { ++runs_ended_; }

 private:
  struct Blocked {
    const QueuedRequest* request = nullptr;
    // The value at the last attempt. A new one can succeed only after another
    // run has ended.
    uint64_t runs_ended = 0;
  };

  std::map<const Model*, Blocked> blocked_;
  uint64_t runs_ended_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_BLOCKED_MODELS_H_
