#include "engine/cuda/arrivals.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "engine/base/check.h"

namespace qk::cuda {
namespace {

constexpr int64_t kSmallestPiece = 4 << 10;
// Larger results go out by the second stream: that costs a copy on the device
// and an event, and frees the first stream from waiting for the bus.
constexpr int64_t kLargeResult = 128 << 10;

class DeviceMoment final : public Moment {
 public:
  DeviceMoment(std::shared_ptr<Runtime> runtime, Stream compute, Stream copies)
      : runtime_(std::move(runtime)),
        done_(Recorded(compute)),
        copied_(Recorded(copies)) {}
  ~DeviceMoment() override {
    for (Event event : {done_, copied_}) {
      if (event != nullptr) runtime_->DestroyEvent(event).IgnoreError();
    }
  }
  DeviceMoment(const DeviceMoment&) = delete;
  DeviceMoment& operator=(const DeviceMoment&) = delete;

  bool reached() const override { return Happened(done_) && Happened(copied_); }
  void Wait() const override {
    for (Event event : {done_, copied_}) {
      if (event != nullptr) runtime_->WaitFor(event).IgnoreError();
    }
  }
  double SecondsSince(const Moment& earlier) const override {
    const Event from = static_cast<const DeviceMoment&>(earlier).done_;
    if (from == nullptr || done_ == nullptr) return 0;
    return runtime_->SecondsBetween(from, done_).value_or(0);
  }

 private:
  // nullptr: the device has failed.
  Event Recorded(Stream stream) {
    const absl::StatusOr<Event> event = runtime_->MakeEvent();
    if (!event.ok()) return nullptr;
    if (runtime_->Record(*event, stream).ok()) return *event;
    runtime_->DestroyEvent(*event).IgnoreError();
    return nullptr;
  }
  bool Happened(Event event) const {
    return event == nullptr || runtime_->Happened(event).value_or(true);
  }

  const std::shared_ptr<Runtime> runtime_;
  const Event done_;
  const Event copied_;
};

}  // namespace

class ArrivalPool::PinnedSlot final : public Arrival::Slot {
 public:
  // `number`: how many results were fetched before.
  PinnedSlot(std::shared_ptr<ArrivalPool> pool, const Piece& piece,
             int64_t bytes, int64_t number)
      : pool_(std::move(pool)), piece_(piece), bytes_(bytes), number_(number) {}
  ~PinnedSlot() override { pool_->GiveBack(piece_); }
  PinnedSlot(const PinnedSlot&) = delete;
  PinnedSlot& operator=(const PinnedSlot&) = delete;

  bool here() const override {
    if (!here_ && (number_ < pool_->arrived_ ||
                   pool_->runtime_->Happened(piece_.copied).value_or(false))) {
      here_ = true;
    }
    return here_;
  }
  absl::Span<const uint8_t> bytes() const override {
    return {static_cast<const uint8_t*>(piece_.memory),
            static_cast<size_t>(bytes_)};
  }

 private:
  const std::shared_ptr<ArrivalPool> pool_;
  const Piece piece_;
  const int64_t bytes_;
  const int64_t number_;
  mutable std::atomic<bool> here_{false};
};

absl::StatusOr<std::shared_ptr<ArrivalPool>> ArrivalPool::Make(
    std::shared_ptr<Runtime> runtime, Stream compute) {
  std::shared_ptr<ArrivalPool> pool(
      new ArrivalPool(std::move(runtime), compute));
  QK_ASSIGN_OR_RETURN(pool->copies_, pool->runtime_->MakeStream());
  return pool;
}

ArrivalPool::~ArrivalPool() {
  if (copies_ != nullptr) {
    runtime_->WaitFor(copies_).IgnoreError();
    runtime_->DestroyStream(copies_).IgnoreError();
  }
  // FreePinned waits for the device.
  for (const auto& [size, piece] : free_) Destroy(piece);
}

void ArrivalPool::Destroy(const Piece& piece) {
  if (piece.copied != nullptr) {
    runtime_->DestroyEvent(piece.copied).IgnoreError();
  }
  if (piece.memory != nullptr) {
    runtime_->FreePinned(piece.memory).IgnoreError();
  }
}

absl::StatusOr<ArrivalPool::Piece> ArrivalPool::MakePiece(int64_t bytes) {
  Piece piece;
  piece.size = static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max(bytes, kSmallestPiece))));
  QK_ASSIGN_OR_RETURN(piece.copied, runtime_->MakeEvent());
  absl::StatusOr<void*> memory = runtime_->AllocatePinned(piece.size);
  if (!memory.ok()) {
    Destroy(piece);
    return memory.status();
  }
  piece.memory = *memory;
  return piece;
}

absl::StatusOr<ArrivalPool::Piece> ArrivalPool::Take(int64_t bytes) {
  {
    MutexLock lock(&mutex_);
    // A piece of more than twice the size waits for results of its own size.
    for (auto it = free_.lower_bound(bytes);
         it != free_.end() && it->first <= std::max(2 * bytes, kSmallestPiece);
         ++it) {
      QK_ASSIGN_OR_RETURN(const bool happened,
                          runtime_->Happened(it->second.copied));
      if (!happened) continue;
      const Piece piece = it->second;
      free_.erase(it);
      return piece;
    }
  }
  return MakePiece(bytes);
}

void ArrivalPool::GiveBack(const Piece& piece) {
  MutexLock lock(&mutex_);
  free_.emplace(piece.size, piece);
}

absl::Status ArrivalPool::Copy(const Piece& piece, const void* device,
                               int64_t bytes) {
  if (bytes >= kLargeResult) {
    // Without memory to set the result aside, it goes out at once.
    const absl::StatusOr<void*> aside = runtime_->Allocate(bytes, compute_);
    if (aside.ok()) {
      absl::Status status =
          runtime_->CopyOnDevice(*aside, device, bytes, compute_);
      if (status.ok()) status = CopyBeside(piece, *aside, bytes);
      status.Update(runtime_->Free(*aside, copies_));
      return status;
    }
    if (!absl::IsResourceExhausted(aside.status())) return aside.status();
  }
  QK_RETURN_IF_ERROR(
      runtime_->CopyToHost(piece.memory, device, bytes, compute_));
  return runtime_->Record(piece.copied, compute_);
}

absl::Status ArrivalPool::CopyBeside(const Piece& piece, void* aside,
                                     int64_t bytes) {
  QK_RETURN_IF_ERROR(runtime_->Record(piece.copied, compute_));
  QK_RETURN_IF_ERROR(runtime_->Follow(copies_, piece.copied));
  QK_RETURN_IF_ERROR(runtime_->CopyToHost(piece.memory, aside, bytes, copies_));
  return runtime_->Record(piece.copied, copies_);
}

absl::StatusOr<Arrival> ArrivalPool::Fetch(const void* device, int64_t bytes) {
  QK_ASSIGN_OR_RETURN(const Piece piece, Take(bytes));
  auto slot =
      std::make_shared<PinnedSlot>(shared_from_this(), piece, bytes, fetched_);
  QK_RETURN_IF_ERROR(Copy(piece, device, bytes));
  ++fetched_;
  return Arrival(std::move(slot));
}

std::unique_ptr<Moment> ArrivalPool::Mark() {
  return std::make_unique<DeviceMoment>(runtime_, compute_, copies_);
}

absl::Status ArrivalPool::Wait() {
  const int64_t fetched = fetched_;
  absl::Status status = runtime_->WaitFor(compute_);
  status.Update(runtime_->WaitFor(copies_));
  // Another thread may have waited for more.
  int64_t arrived = arrived_;
  while (status.ok() && arrived < fetched &&
         !arrived_.compare_exchange_weak(arrived, fetched)) {
  }
  return status;
}

}  // namespace qk::cuda
