// The file of one kept result. It is a sequence of records: a SpoolHeader, the
// events, a SpoolEnd. Each record has a type, a length, a CRC-32C and a
// payload. The file is called ID.part while it is written. It is renamed to
// ID.result once it is complete and synced, so a file of that name is complete
// no matter when the process died.
//
// No file holds a descriptor: each is opened when it is used (OpenFiles).
#ifndef QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_
#define QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/base/mutex.h"
#include "qkscope/v1/spool.pb.h"
#include "server/common/bytes.h"
#include "server/results/open_files.h"

namespace qk {

inline constexpr char kSpoolPart[] = ".part";
inline constexpr char kSpoolResult[] = ".result";

// The folder that the files lie in, and what they have in common. Thread-safe.
class SpoolFolder {
 public:
  // At most `most_open` files are open at a time (see OpenFiles). `on_error`
  // is told of each failure of the system, on any thread.
  SpoolFolder(std::string path, int most_open,
              std::function<void(const absl::Status&)> on_error = nullptr)
      : path_(std::move(path)),
        files_(most_open),
        on_error_(std::move(on_error)) {}

  const std::string& path() const { return path_; }
  OpenFiles* files() { return &files_; }
  // The status for `errno`, which says that the server could not do `what`.
  // RESOURCE_EXHAUSTED, with a time to try again: the disk is full, or there
  // are no descriptors or no memory. UNAVAILABLE: all else that is wrong with
  // this machine.
  absl::Status Failed(const char* what) const;
  void Report(const absl::Status& status) const {
    if (on_error_) on_error_(status);
  }

 private:
  const std::string path_;
  OpenFiles files_;
  const std::function<void(const absl::Status&)> on_error_;
};

// One thread may write (Append, Complete) while others read.
class SpoolFile {
 public:
  // Creates a new file in the folder, which must outlive it. Errors:
  // ALREADY_EXISTS, and SpoolFolder::Failed.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Create(
      SpoolFolder* folder, const ::qkscope::v1::SpoolHeader& header);
  // Finds a complete file by its header and its end; Read checks what is
  // between them. DATA_LOSS says what is wrong with the file and where,
  // NOT_FOUND that there is none; else as SpoolFolder::Failed.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Open(SpoolFolder* folder,
                                                         const std::string& id);
  ~SpoolFile();  // removes an incomplete file

  // Appends an event. Does nothing once the file is removed.
  absl::Status Append(absl::string_view event);
  // Writes the end, syncs the file and renames it. Does nothing once the file
  // is removed.
  absl::Status Complete(::qkscope::v1::SpoolEnd end);

  // Where the first event begins, or would.
  int64_t first_event() const { return first_event_; }
  struct Event {
    Bytes payload;
    int64_t next = 0;  // where the next record begins
  };
  // Reads the event at `offset`. DATA_LOSS if there is none or its checksum is
  // wrong; NOT_FOUND `request_id: no such result` if the file has gone.
  absl::StatusOr<Event> Read(int64_t offset) const;
  // Where the event `count` events after the one at `offset` begins. Errors as
  // Read's, but payloads are not checked.
  absl::StatusOr<int64_t> Skip(int64_t offset, int64_t count) const;

  const ::qkscope::v1::SpoolHeader& header() const { return header_; }
  // The end of a file that was opened.
  const ::qkscope::v1::SpoolEnd& end() const { return end_; }
  // May be called on any thread.
  int64_t bytes() const { return bytes_; }

  // Deletes the file. From then on it cannot be read.
  void Remove() ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether the file is on the disk, under its name.
  bool Exists() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  SpoolFile(SpoolFolder* folder, ::qkscope::v1::SpoolHeader header)
      : folder_(folder), header_(std::move(header)) {}
  std::string Path() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool removed() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<OpenFile>> Use() const
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WriteRecord(char type, absl::string_view payload);
  absl::Status Rename() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ReadEnds(int fd, const std::string& id);
  absl::Status ReadHeader(int fd, const std::string& id);

  SpoolFolder* const folder_;
  ::qkscope::v1::SpoolHeader header_;
  ::qkscope::v1::SpoolEnd end_;
  int64_t first_event_ = 0;
  std::atomic<int64_t> bytes_ = 0;

  mutable Mutex mutex_;  // over the file's name
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;
  bool removed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_
