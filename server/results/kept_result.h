// One kept result and its readers. Nothing of it is in memory but what lists
// and limits need: events are read from its file.
#ifndef QKSCOPE_SERVER_RESULTS_KEPT_RESULT_H_
#define QKSCOPE_SERVER_RESULTS_KEPT_RESULT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/results/spool_file.h"

namespace qk {

class ResultReader;

// One request's events, written by one thread and read by any number of
// ResultReaders on any threads. Times are those of the store's monotonic clock.
class KeptResult {
 public:
  // A result that begins at `created`.
  KeptResult(std::unique_ptr<SpoolFile> file, absl::Time created);
  // A complete result of an earlier process.
  KeptResult(std::unique_ptr<SpoolFile> file, absl::Time created,
             absl::Time finished);

  const ::qkscope::v1::SpoolHeader& header() const { return file_->header(); }

  // Appends the next event, serialised. A result that was deleted takes events
  // and keeps none.
  absl::Status Append(absl::string_view event) ABSL_LOCKS_EXCLUDED(mutex_);

  struct State {
    int64_t events = 0;
    int64_t bytes = 0;
    bool finished = false;
    absl::Time created;
    absl::Time finished_at;  // once it is finished
    absl::Status status;     // the request's
  };
  State state() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class ResultReader;
  friend class ResultStore;

  // Ends the result with the request's status. A result whose end cannot be
  // written stays readable until the process ends. `wall` is the time of day.
  void Finish(const absl::Status& status, absl::Time now, absl::Time wall)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Deletes the file; readers find out that the result has gone.
  void Remove() ABSL_LOCKS_EXCLUDED(mutex_);
  bool FileExists() const { return file_->Exists(); }
  // Where event `seq` begins, which exists.
  absl::StatusOr<int64_t> OffsetOf(int64_t seq) ABSL_LOCKS_EXCLUDED(mutex_);
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<SpoolFile> file_;
  const absl::Time created_;
  mutable Mutex mutex_;
  int64_t events_ ABSL_GUARDED_BY(mutex_) = 0;
  // Where events 0, kMarkEvery, 2 kMarkEvery, ... begin, as far as known.
  std::vector<int64_t> marks_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool removed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time finished_at_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::set<ResultReader*> waiting_ ABSL_GUARDED_BY(mutex_);
};

// Reads a result's events in their order. Not thread-safe.
class ResultReader {
 public:
  // Begins with event `from_seq`. `wake` is called after each Next that
  // returned kWait, on the writer's thread, at most once, perhaps while this
  // object is destroyed.
  ResultReader(std::shared_ptr<KeptResult> result, int64_t from_seq,
               std::function<void()> wake);
  ~ResultReader();
  ResultReader(const ResultReader&) = delete;
  ResultReader& operator=(const ResultReader&) = delete;

  const KeptResult& result() const { return *result_; }

  struct Event {
    enum Kind { kEvent, kWait, kEnd } kind = kWait;
    Bytes event;          // kEvent
    absl::Status status;  // kEnd: the request's status
  };
  // Returns the next event, the end, or kWait if there is no more yet.
  // OUT_OF_RANGE past the end; CANCELLED if the result was deleted; else as
  // SpoolFile::Read.
  absl::StatusOr<Event> Next();

 private:
  friend class KeptResult;

  const std::shared_ptr<KeptResult> result_;
  const std::function<void()> wake_;
  int64_t seq_;          // of the next event
  int64_t offset_ = -1;  // of the next event; -1: not known yet
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_KEPT_RESULT_H_
