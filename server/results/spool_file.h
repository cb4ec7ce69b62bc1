// The file of one kept result: records of a type, a length, a CRC-32C and a
// payload; a SpoolHeader, the events, a SpoolEnd. While it is written it is
// called ID.part; it becomes ID.result once it is whole and on the disk, so a
// file of that name is complete whenever the process may have died.
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

// 16 lower-case hex digits: what may stand in a file's name.
bool IsRequestId(absl::string_view text);

// Not thread-safe, but Read may run beside Append.
class SpoolFile {
 public:
  // A new file in the directory. ALREADY_EXISTS, RESOURCE_EXHAUSTED (disk
  // full), UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Create(
      const std::string& directory, const ::qkscope::v1::SpoolHeader& header);
  // A complete one. DATA_LOSS says what is wrong with it and where.
  static absl::StatusOr<std::unique_ptr<SpoolFile>> Open(
      const std::string& directory, const std::string& id);
  ~SpoolFile();  // what is not complete is removed

  // The event's place, for Read.
  absl::StatusOr<int64_t> Append(absl::string_view event);
  // Writes the end, waits for the disk, renames.
  absl::Status Complete(const ::qkscope::v1::SpoolEnd& end);
  // DATA_LOSS when its checksum is wrong.
  absl::StatusOr<Bytes> Read(int64_t offset) const;
  // Of a file that was opened.
  const std::vector<int64_t>& offsets() const { return offsets_; }
  const ::qkscope::v1::SpoolHeader& header() const { return header_; }
  const ::qkscope::v1::SpoolEnd& end() const { return end_; }

  // Any thread.
  int64_t bytes() const { return bytes_; }
  // Takes the file away; what is open may still be read.
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
