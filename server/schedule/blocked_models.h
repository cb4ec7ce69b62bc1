// Runs that wait for memory: while one does, no other run of its model is
// admitted, so that small runs cannot overtake it for ever.
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
  // The request's run found no memory.
  void Block(const QueuedRequest* request, const Model* model) {
    blocked_[model] = {request, runs_ended_};
  }
  void Unblock(const Model* model) { blocked_.erase(model); }
  // The request is gone.
  void Forget(const QueuedRequest* request);
  // A run gave its memory back.
  void RunEnded() { ++runs_ended_; }

 private:
  struct Blocked {
    const QueuedRequest* request = nullptr;
    uint64_t runs_ended = 0;  // then; no use to try again before that grows
  };

  std::map<const Model*, Blocked> blocked_;
  uint64_t runs_ended_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_BLOCKED_MODELS_H_
