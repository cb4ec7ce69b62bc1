// Carries the output of a run from the scheduler's thread to a reader. Pushing
// never blocks and never fails, because its bytes are taken from the pool
// before the run starts. Checksums, digests and messages are made on the
// reader's side (event_encoder.h), so the device's thread only moves pointers.
#ifndef QKSCOPE_SERVER_EVENTS_FRAME_QUEUE_H_
#define QKSCOPE_SERVER_EVENTS_FRAME_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "engine/types/results.h"
#include "server/common/byte_pool.h"
#include "server/common/run_room.h"

namespace qk {

struct QueuePosition {
  int position = 0;
};
struct ArmLogits {
  int arm = 0;
  std::vector<PositionLogits> logits;
};
struct RunEnd {
  absl::Status status;
  std::vector<ArmSummary> arms;
  RunTimes times;
};

using StreamItem =
    std::variant<QueuePosition, LayerFrame, AppliedRule, TokenEvent,
                 ComparisonResult, ArmLogits, ScoreResult, RunEnd>;

// The item's approximate size in memory.
int64_t ItemBytes(const StreamItem& item);

// What a queue may hold.
struct QueueRoom {
  BytePool* pool = nullptr;
  std::string user;  // alias
  int64_t bytes = 0;
};

class FrameQueue : public RunSink, public RunRoom {
 public:
  // `buffered`: total bytes in all queues and with their readers; the queue
  // keeps it up to date.
  // `wake`: called once when an item arrives after Pop has found none. It runs
  // on the pushing thread, without locks, and should only post a task.
  FrameQueue(QueueRoom room, std::atomic<int64_t>* buffered,
             std::function<void()> wake);
  ~FrameQueue() override;

  bool TakeRoom() override;
  void GiveRoomBack() override;

  void PushPosition(int position);
  void OnLayer(LayerFrame frame) override;
  void OnApplied(AppliedRule applied) override;
  void OnToken(TokenEvent token) override;
  void OnComparison(ComparisonResult comparison) override;
  void OnLogits(int arm, std::vector<PositionLogits> logits) override;
  void OnScore(ScoreResult score) override;
  void OnFinished(const absl::Status& status,
                  const std::vector<ArmSummary>& arms,
                  const RunTimes& times) override;

  // Takes the oldest item. If it returns nullopt, `wake` will be called. One
  // reader at a time.
  std::optional<StreamItem> Pop();
  // Returns bytes that the reader has finished with to the pool.
  void Release(int64_t bytes);
  // Drops all items, those in the queue and those still to come, because nobody
  // reads any more.
  void Discard();

 private:
  std::optional<StreamItem> Take();
  void Push(StreamItem item);

  const QueueRoom room_;
  std::atomic<int64_t>* const buffered_;
  const std::function<void()> wake_;
  Mutex mutex_;
  ByteLease lease_ ABSL_GUARDED_BY(mutex_);
  std::deque<StreamItem> items_ ABSL_GUARDED_BY(mutex_);
  // The bytes of items_ and of the item that was popped last.
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // The bytes of the item that was popped last.
  int64_t in_hand_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reader_waits_ ABSL_GUARDED_BY(mutex_) = false;
  bool discarded_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_FRAME_QUEUE_H_
