// The file of one kept result. It is a sequence of records: a SpoolHeader, the
// events, a SpoolEnd. Each record has a type, a length, a CRC-32C and a
// payload. The file is called ID.part while it is written. It is renamed to
// ID.result once it is complete and synced, so a file of that name is complete
// no matter when the process died.
#ifndef QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_
#define QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "qkscope/v1/spool.pb.h"
#include "server/common/bytes.h"

namespace qk {

inline constexpr char kSpoolPart[] = ".part";
inline constexpr char kSpoolResult[] = ".result";

// Whether `text` is a request's id, 16 lower-case hex digits, and therefore
// safe in a file name.
bool IsRequestId(absl::string_view text);

// Not thread-safe, but Read may run concurrently with Append.
class SpoolFile {
 public:
  // Creates a new file in the directory. Errors: ALREADY_EXISTS,
  // RESOURCE_EXHAUSTED (disk full), UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Create(
      const std::string& directory, const ::qkscope::v1::SpoolHeader& header);
  // Opens a complete file. DATA_LOSS says what is wrong with it and where.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Open(
      const std::string& directory, const std::string& id);
  ~SpoolFile();  // removes an incomplete file

  // Appends an event and returns its offset, for Read.
  absl::StatusOr<int64_t> Append(absl::string_view event);
  // Writes the end, syncs the file and renames it.
  absl::Status Complete(const ::qkscope::v1::SpoolEnd& end);
  // Reads the event at `offset`. DATA_LOSS if its checksum is wrong.
  absl::StatusOr<Bytes> Read(int64_t offset) const;
  // The offsets of the events; only of a file that was opened.
  const std::vector<int64_t>& offsets() const { return offsets_; }
  const ::qkscope::v1::SpoolHeader& header() const { return header_; }
  const ::qkscope::v1::SpoolEnd& end() const { return end_; }

  // May be called on any thread.
  int64_t bytes() const { return bytes_; }
  // Deletes the file; it can still be read while it is open.
  void Remove();

 private:
  SpoolFile(std::string directory, std::string id, int fd);
  absl::Status WriteRecord(char type, absl::string_view payload);
  absl::Status Scan();

  const std::string directory_;
  const std::string id_;
  const int fd_;
  std::atomic<int64_t> bytes_ = 0;
  bool complete_ = false;
  bool removed_ = false;
  ::qkscope::v1::SpoolHeader header_;
  ::qkscope::v1::SpoolEnd end_;
  std::vector<int64_t> offsets_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_SPOOL_FILE_H_
