#include "server/results/kept_result.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"

namespace qk {
namespace {

// Every so many events, a result remembers where one begins.
constexpr int64_t kMarkEvery = 256;

}  // namespace

KeptResult::KeptResult(std::unique_ptr<SpoolFile> file, absl::Time created)
    : file_(std::move(file)), created_(created) {}

KeptResult::KeptResult(std::unique_ptr<SpoolFile> file, absl::Time created,
                       absl::Time finished)
    : file_(std::move(file)),
      created_(created),
      events_(file_->end().events()),
      finished_(true),
      finished_at_(finished),
      status_(static_cast<absl::StatusCode>(file_->end().code()),
              file_->end().message()) {}

absl::Status KeptResult::Append(absl::string_view event) {
  const int64_t offset = file_->bytes();
  QK_RETURN_IF_ERROR(file_->Append(event));
  {
    MutexLock lock(&mutex_);
    if (removed_) return absl::OkStatus();
    if (events_ % kMarkEvery == 0) marks_.push_back(offset);
    ++events_;
  }
  Wake();
  return absl::OkStatus();
}

void KeptResult::Finish(const absl::Status& status, absl::Time now,
                        absl::Time wall) {
  ::qkscope::v1::SpoolEnd end;
  end.set_finished_unix_ms(absl::ToUnixMillis(wall));
  end.set_code(static_cast<int>(status.code()));
  end.set_message(std::string(status.message()));
  {
    MutexLock lock(&mutex_);
    end.set_events(events_);
  }
  const absl::Status complete = file_->Complete(std::move(end));
  {
    MutexLock lock(&mutex_);
    finished_ = true;
    finished_at_ = now;
    status_ = status.ok() ? complete : status;
  }
  Wake();
}

void KeptResult::Remove() {
  {
    MutexLock lock(&mutex_);
    removed_ = true;
  }
  file_->Remove();
  Wake();
}

void KeptResult::Wake() {
  std::vector<std::function<void()>> wakes;
  {
    MutexLock lock(&mutex_);
    wakes.reserve(waiting_.size());
    for (const ResultReader* reader : waiting_) wakes.push_back(reader->wake_);
    waiting_.clear();
  }
  for (const auto& wake : wakes) wake();
}

KeptResult::State KeptResult::state() const {
  MutexLock lock(&mutex_);
  return {events_, file_->bytes(), finished_, created_, finished_at_, status_};
}

absl::StatusOr<int64_t> KeptResult::OffsetOf(int64_t seq) {
  int64_t at = file_->first_event(), offset = 0;
  {
    MutexLock lock(&mutex_);
    if (marks_.empty()) marks_.push_back(at);
    const auto mark = std::min<int64_t>(
        seq / kMarkEvery, static_cast<int64_t>(marks_.size()) - 1);
    at = mark * kMarkEvery;
    offset = marks_[static_cast<size_t>(mark)];
  }
  while (at < seq) {
    const int64_t count = std::min(kMarkEvery, seq - at);
    QK_ASSIGN_OR_RETURN(offset, file_->Skip(offset, count));
    at += count;
    MutexLock lock(&mutex_);
    if (at == static_cast<int64_t>(marks_.size()) * kMarkEvery) {
      marks_.push_back(offset);
    }
  }
  return offset;
}

ResultReader::ResultReader(std::shared_ptr<KeptResult> result, int64_t from_seq,
                           std::function<void()> wake)
    : result_(std::move(result)), wake_(std::move(wake)), seq_(from_seq) {}

ResultReader::~ResultReader() {
  MutexLock lock(&result_->mutex_);
  result_->waiting_.erase(this);
}

absl::StatusOr<ResultReader::Event> ResultReader::Next() {
  Event out;
  {
    MutexLock lock(&result_->mutex_);
    const bool at_end = seq_ >= result_->events_ || result_->removed_;
    if (at_end && !result_->finished_) {
      result_->waiting_.insert(this);
      return out;
    }
    if (result_->removed_ && result_->status_.ok()) {
      return absl::CancelledError("the result was deleted");
    }
    if (seq_ > result_->events_ && !result_->removed_) {
      return absl::OutOfRangeError(absl::StrFormat(
          "from_seq: must be in [0, %d], got %d", result_->events_, seq_));
    }
    if (at_end) {
      out.kind = Event::kEnd;
      out.status = result_->status_;
      return out;
    }
  }
  if (offset_ < 0) {
    QK_ASSIGN_OR_RETURN(offset_, result_->OffsetOf(seq_));
  }
  QK_ASSIGN_OR_RETURN(SpoolFile::Event event, result_->file_->Read(offset_));
  offset_ = event.next;
  ++seq_;
  out.kind = Event::kEvent;
  out.event = std::move(event.payload);
  return out;
}

}  // namespace qk
