#include "server/events/frame_queue.h"

#include <new>
#include <utility>

namespace qk {
namespace {

// Bytes of an item's own fields, in addition to its payload.
constexpr int64_t kItemOverhead = 256;

struct PayloadBytes {
  int64_t operator()(const QueuePosition&) const { return 0; }
  int64_t operator()(const LayerFrame& frame) const {
    int64_t bytes = static_cast<int64_t>(frame.data.size());
    if (frame.statistics_inputs.has_value()) {
      bytes += frame.statistics_inputs->top_n *
               static_cast<int64_t>(sizeof(MassiveEntry));
    }
    return bytes;
  }
  int64_t operator()(const AppliedRule& applied) const {
    int64_t bytes = 0;
    for (const AppliedDims& chosen : applied.chosen) {
      bytes += sizeof(chosen) + chosen.dims.size() * sizeof(int) +
               chosen.values.size() * sizeof(float);
    }
    return bytes;
  }
  int64_t operator()(const TokenEvent& token) const {
    return static_cast<int64_t>(token.text.size());
  }
  int64_t operator()(const ComparisonResult& comparison) const {
    return comparison.kl.size() * (3 * sizeof(float) + 1);
  }
  int64_t operator()(const ArmLogits& logits) const {
    int64_t bytes = 0;
    for (const PositionLogits& position : logits.logits) {
      bytes += sizeof(position) + position.ids.size() * 2 * sizeof(float);
    }
    return bytes;
  }
  int64_t operator()(const ScoreResult& score) const {
    return score.token_logprob.size() * (sizeof(float) + 1);
  }
  int64_t operator()(const RunEnd& end) const {
    int64_t bytes = 0;
    for (const ArmSummary& arm : end.arms) bytes += arm.text.size();
    return bytes;
  }
};

}  // namespace

int64_t ItemBytes(const StreamItem& item) {
  return kItemOverhead + std::visit(PayloadBytes(), item);
}

FrameQueue::FrameQueue(QueueRoom room, std::atomic<int64_t>* buffered,
                       std::function<void()> wake)
    : room_(std::move(room)), buffered_(buffered), wake_(std::move(wake)) {}

FrameQueue::~FrameQueue() {
  room_.pool->StopWaiting(this);
  *buffered_ -= bytes_;
}

bool FrameQueue::TakeRoom() {
  MutexLock lock(&mutex_);
  if (discarded_) return true;  // its run is about to end
  auto lease = room_.pool->Take(room_.user, room_.bytes, this);
  if (!lease.ok()) return false;
  lease_ = *std::move(lease);
  return true;
}

void FrameQueue::GiveRoomBack() {
  ByteLease given;  // returned without the lock
  MutexLock lock(&mutex_);
  given = std::move(lease_);
}

void FrameQueue::PushPosition(int position) {
  {
    MutexLock lock(&mutex_);
    // Only the newest position matters.
    if (!items_.empty()) {
      if (auto* last = std::get_if<QueuePosition>(&items_.back())) {
        last->position = position;
        return;
      }
    }
  }
  Push(QueuePosition{position});
}

void FrameQueue::OnLayer(LayerFrame frame) { Push(std::move(frame)); }
void FrameQueue::OnApplied(AppliedRule applied) { Push(std::move(applied)); }
void FrameQueue::OnToken(TokenEvent token) { Push(std::move(token)); }
void FrameQueue::OnComparison(ComparisonResult comparison) {
  Push(std::move(comparison));
}
void FrameQueue::OnLogits(int arm, std::vector<PositionLogits> logits) {
  Push(ArmLogits{arm, std::move(logits)});
}
void FrameQueue::OnScore(ScoreResult score) { Push(std::move(score)); }
void FrameQueue::OnFinished(const absl::Status& status,
                            const std::vector<ArmSummary>& arms,
                            const RunTimes& times) {
  Push(RunEnd{status, arms, times});
}

void FrameQueue::Push(StreamItem item) {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    if (discarded_) return;
    const int64_t bytes = ItemBytes(item);
    items_.push_back(std::move(item));
    bytes_ += bytes;
    *buffered_ += bytes;
    wake = std::exchange(reader_waits_, false);
  }
  if (!wake) return;
  try {
    wake_();
  } catch (const std::bad_alloc&) {
    // The run ends with this failure and then tries to wake its reader again.
    MutexLock lock(&mutex_);
    reader_waits_ = true;
    throw;
  }
}

std::optional<StreamItem> FrameQueue::Pop() {
  std::optional<StreamItem> item = Take();
  if (!item.has_value()) return item;
  if (auto* frame = std::get_if<LayerFrame>(&*item)) frame->ComputeStatistics();
  return item;
}

std::optional<StreamItem> FrameQueue::Take() {
  MutexLock lock(&mutex_);
  // The reader has finished with the previous item.
  bytes_ -= in_hand_;
  *buffered_ -= std::exchange(in_hand_, 0);
  if (items_.empty()) {
    reader_waits_ = !discarded_;
    return std::nullopt;
  }
  StreamItem item = std::move(items_.front());
  items_.pop_front();
  in_hand_ = ItemBytes(item);
  return item;
}

void FrameQueue::Release(int64_t bytes) {
  ByteLease given;  // returned without the lock
  MutexLock lock(&mutex_);
  given = lease_.Split(bytes);
}

void FrameQueue::Discard() {
  room_.pool->StopWaiting(this);
  std::deque<StreamItem> dropped;
  ByteLease given;
  MutexLock lock(&mutex_);
  discarded_ = true;
  reader_waits_ = false;
  dropped.swap(items_);
  in_hand_ = 0;
  *buffered_ -= std::exchange(bytes_, 0);
  given = std::move(lease_);
}

}  // namespace qk
