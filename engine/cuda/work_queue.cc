#include "engine/cuda/work_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk::cuda {
namespace {

constexpr int64_t kUploadPart = int64_t{1} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<WorkQueue>> WorkQueue::Make(
    std::shared_ptr<Runtime> runtime, OnLost lost) {
  std::unique_ptr<WorkQueue> queue(
      new WorkQueue(std::move(runtime), std::move(lost)));
  QK_RETURN_IF_ERROR(queue->Open());
  return queue;
}

absl::Status WorkQueue::Open() {
  QK_RETURN_IF_ERROR(runtime_->Use());
  QK_ASSIGN_OR_RETURN(stream_, runtime_->MakeStream());
  QK_ASSIGN_OR_RETURN(arrivals_, ArrivalPool::Make(runtime_, stream_));
  partial_.emplace(runtime_.get(), stream_);
  rounded_.emplace(runtime_.get(), stream_);
  lists_.emplace(runtime_.get(), stream_);
  QK_RETURN_IF_ERROR(lists_->Reserve(4 * kUploadPart));
  MutexLock lock(&upload_mutex_);
  QK_ASSIGN_OR_RETURN(uploads_,
                      UploadRing::Make(runtime_.get(), stream_, kUploadPart));
  return absl::OkStatus();
}

// A failure here is one of a device that is lost.
WorkQueue::~WorkQueue() {
  runtime_->Use().IgnoreError();
  if (stream_ == nullptr) return;
  runtime_->WaitFor(stream_).IgnoreError();
  {
    MutexLock lock(&upload_mutex_);
    uploads_.reset();
  }
  lists_.reset();
  rounded_.reset();
  partial_.reset();
  arrivals_.reset();
  runtime_->DestroyStream(stream_).IgnoreError();
}

bool WorkQueue::Ready() {
  if (!any_failure_ && Note(runtime_->Use())) return true;
  MutexLock lock(&failure_mutex_);
  return lost_.ok() && failures_.count(std::this_thread::get_id()) == 0;
}

bool WorkQueue::Note(const absl::Status& status) {
  if (status.ok()) return true;
  any_failure_ = true;
  const absl::Status told =
      IsLost(status) ? lost_call_(status.message()) : status;
  MutexLock lock(&failure_mutex_);
  if (IsLost(status) && lost_.ok()) lost_ = told;
  failures_.emplace(std::this_thread::get_id(), told);
  return false;
}

absl::Status WorkQueue::Synchronize() {
  if (Note(runtime_->Use())) Note(arrivals_->Wait());
  MutexLock lock(&failure_mutex_);
  absl::Status status = lost_;
  const auto own = failures_.find(std::this_thread::get_id());
  if (own != failures_.end()) {
    if (lost_.ok()) status = own->second;
    failures_.erase(own);
  }
  any_failure_ = !failures_.empty() || !lost_.ok();
  return status;
}

absl::StatusOr<void*> WorkQueue::Allocate(int64_t bytes) {
  QK_RETURN_IF_ERROR(runtime_->Use());
  absl::StatusOr<void*> data =
      runtime_->Allocate(std::max<int64_t>(bytes, 1), stream_);
  if (data.ok()) return data;
  if (!absl::IsResourceExhausted(data.status())) {
    Note(data.status());
    return data.status();
  }
  const DeviceFacts& facts = runtime_->facts();
  return absl::ResourceExhaustedError(
      absl::StrCat("needs ", bytes, " bytes of device memory, ",
                   runtime_->FreeBytes().value_or(0), " of ",
                   facts.usable_bytes, " are free on ", facts.name));
}

void WorkQueue::Free(void* data) {
  stale_ = true;
  const absl::Status status = runtime_->Free(data, stream_);
  // Whoever frees asks for no status.
  if (IsLost(status)) Note(status);
}

void WorkQueue::Upload(void* device, const void* host, int64_t bytes) {
  if (!Ready()) return;
  stale_ = true;
  auto* to = static_cast<uint8_t*>(device);
  const auto* from = static_cast<const uint8_t*>(host);
  for (int64_t done = 0; done < bytes; done += kUploadPart) {
    MutexLock lock(&upload_mutex_);  // part by part: others need not wait long
    if (!Note(uploads_->Copy(to + done, from + done,
                             std::min(kUploadPart, bytes - done)))) {
      return;
    }
  }
}

Arrival WorkQueue::Fetch(const void* device, int64_t bytes) {
  Arrival arrival;
  RunAside([&] {
    absl::StatusOr<Arrival> fetched = arrivals_->Fetch(device, bytes);
    if (Note(fetched.status())) arrival = *std::move(fetched);
  });
  return arrival;
}

const uint8_t* WorkQueue::Send(const Arguments& lists) {
  if (sent_ + lists.size() > lists_->size()) {
    // Earlier work reads what is there before it is overwritten or freed.
    if (!Note(lists_->Reserve(lists.size()))) return nullptr;
    sent_ = 0;
  }
  uint8_t* to = lists_->as<uint8_t>() + sent_;
  sent_ += (lists.size() + 15) / 16 * 16;
  MutexLock lock(&upload_mutex_);
  return Note(uploads_->Copy(to, lists.data(), lists.size())) ? to : nullptr;
}

float* WorkQueue::Partial(int64_t floats) {
  // Never null without a failure.
  if (!Note(partial_->Reserve(std::max<int64_t>(4 * floats, 4)))) {
    return nullptr;
  }
  return partial_->as<float>();
}

}  // namespace qk::cuda
