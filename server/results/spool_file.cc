#include "server/results/spool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "server/common/delay_point.h"

namespace qk {
namespace {

constexpr char kHeader = 'H', kEvent = 'E', kEnd = 'Z';
// Bytes before a record's payload: type, length, CRC-32C (little-endian).
constexpr size_t kRecordHeaderBytes = 1 + 4 + 4;
// Far above the size of any event, which gRPC limits to 4 MiB.
constexpr uint32_t kMaxPayload = 64u << 20;

void Put32(uint32_t value, char* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<char>(value >> (8 * i));
}

uint32_t Get32(const char* in) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(in[i]))
             << (8 * i);
  }
  return value;
}

absl::Status Failed(const char* what) {
  const int error = errno;
  const std::string message =
      absl::StrCat("spool: cannot ", what, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) {
    return absl::ResourceExhaustedError(message);
  }
  if (error == EEXIST) return absl::AlreadyExistsError(message);
  if (error == ENOENT) return absl::NotFoundError(message);
  return absl::UnavailableError(message);
}

bool ReadAll(int fd, int64_t offset, size_t size, char* out) {
  while (size > 0) {
    const ssize_t got = pread(fd, out, size, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    offset += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

absl::Status Damaged(const std::string& id, const char* what, int64_t offset) {
  return absl::DataLossError(
      absl::StrFormat("result %s: %s (offset %d)", id, what, offset));
}

}  // namespace

bool IsRequestId(absl::string_view text) {
  return text.size() == 16 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

SpoolFile::SpoolFile(std::string directory, std::string id, int fd)
    : directory_(std::move(directory)), id_(std::move(id)), fd_(fd) {}

SpoolFile::~SpoolFile() {
  if (!complete_) Remove();
  close(fd_);
}

absl::StatusOr<std::unique_ptr<SpoolFile>> SpoolFile::Create(
    const std::string& directory, const ::qkscope::v1::SpoolHeader& header) {
  QK_CHECK(IsRequestId(header.request_id()));
  const std::string path =
      absl::StrCat(directory, "/", header.request_id(), kSpoolPart);
  DelayPoint("spool.create.before");
  const int fd = open(path.c_str(),
                      O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return Failed("make a file");
  DelayPoint("spool.create.after");
  std::unique_ptr<SpoolFile> file(
      new SpoolFile(directory, header.request_id(), fd));
  file->header_ = header;
  QK_RETURN_IF_ERROR(file->WriteRecord(kHeader, header.SerializeAsString()));
  return file;
}

absl::Status SpoolFile::WriteRecord(char type, absl::string_view payload) {
  QK_CHECK(payload.size() <= kMaxPayload);
  std::string record(kRecordHeaderBytes, '\0');
  record[0] = type;
  Put32(static_cast<uint32_t>(payload.size()), &record[1]);
  Put32(Crc32c(payload.data(), payload.size()), &record[5]);
  record.append(payload.data(), payload.size());
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t wrote =
        pwrite(fd_, record.data() + done, record.size() - done,
               bytes_ + static_cast<int64_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return Failed("write");
    done += static_cast<size_t>(wrote);
  }
  bytes_ += static_cast<int64_t>(record.size());
  DelayPoint("spool.record.after");
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SpoolFile::Append(absl::string_view event) {
  const int64_t offset = bytes_;
  QK_RETURN_IF_ERROR(WriteRecord(kEvent, event));
  return offset;
}

absl::Status SpoolFile::Complete(const ::qkscope::v1::SpoolEnd& end) {
  end_ = end;
  QK_RETURN_IF_ERROR(WriteRecord(kEnd, end.SerializeAsString()));
  DelayPoint("spool.sync.before");
  if (fsync(fd_) != 0) return Failed("sync");
  DelayPoint("spool.sync.after");
  const std::string base = absl::StrCat(directory_, "/", id_);
  DelayPoint("spool.rename.before");
  if (rename((base + kSpoolPart).c_str(), (base + kSpoolResult).c_str()) != 0) {
    return Failed("rename");
  }
  DelayPoint("spool.rename.after");
  complete_ = true;
  const int folder =
      open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return Failed("open the directory");
  const bool synced = fsync(folder) == 0;
  close(folder);
  return synced ? absl::OkStatus() : Failed("sync the directory");
}

absl::StatusOr<Bytes> SpoolFile::Read(int64_t offset) const {
  char prefix[kRecordHeaderBytes];
  if (!ReadAll(fd_, offset, kRecordHeaderBytes, prefix) ||
      prefix[0] != kEvent || Get32(prefix + 1) > kMaxPayload) {
    return Damaged(id_, "not an event", offset);
  }
  Bytes payload(Get32(prefix + 1));
  if (!ReadAll(fd_, offset + static_cast<int64_t>(kRecordHeaderBytes),
               payload.size(), payload.data())) {
    return Damaged(id_, "the event is cut off", offset);
  }
  if (Crc32c(payload.data(), payload.size()) != Get32(prefix + 5)) {
    return Damaged(id_, "wrong checksum", offset);
  }
  return payload;
}

absl::StatusOr<std::unique_ptr<SpoolFile>> SpoolFile::Open(
    const std::string& directory, const std::string& id) {
  QK_CHECK(IsRequestId(id));
  const std::string path = absl::StrCat(directory, "/", id, kSpoolResult);
  const int fd =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return Failed("open a result");
  std::unique_ptr<SpoolFile> file(new SpoolFile(directory, id, fd));
  file->complete_ = true;
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return Damaged(id, "not a regular file", 0);
  }
  file->bytes_ = info.st_size;
  QK_RETURN_IF_ERROR(file->Scan());
  return file;
}

// Finds the events; Read checks their payloads.
absl::Status SpoolFile::Scan() {
  int64_t offset = 0;
  bool ended = false;
  while (offset < bytes_) {
    char prefix[kRecordHeaderBytes];
    if (ended || !ReadAll(fd_, offset, kRecordHeaderBytes, prefix)) {
      return Damaged(id_, "data after the end", offset);
    }
    const char type = prefix[0];
    const int64_t length = Get32(prefix + 1);
    const int64_t payload = offset + static_cast<int64_t>(kRecordHeaderBytes);
    if (length > kMaxPayload || length > bytes_ - payload) {
      return Damaged(id_, "a record is cut off", offset);
    }
    if (type == kEvent && offset > 0) {
      offsets_.push_back(offset);
    } else if ((type == kHeader && offset == 0) ||
               (type == kEnd && offset > 0)) {
      std::string text(static_cast<size_t>(length), '\0');
      if (!ReadAll(fd_, payload, text.size(), text.data()) ||
          Crc32c(text.data(), text.size()) != Get32(prefix + 5) ||
          !(type == kHeader ? header_.ParseFromString(text)
                            : end_.ParseFromString(text))) {
        return Damaged(id_, "wrong checksum", offset);
      }
      ended = type == kEnd;
    } else {
      return Damaged(id_, "unknown record", offset);
    }
    offset = payload + length;
  }
  if (!ended) return Damaged(id_, "no end", offset);
  if (header_.request_id() != id_) {
    return Damaged(id_, "belongs to another request", 0);
  }
  if (end_.events() != static_cast<int64_t>(offsets_.size())) {
    return Damaged(id_, "events are missing", offset);
  }
  return absl::OkStatus();
}

void SpoolFile::Remove() {
  if (std::exchange(removed_, true)) return;
  DelayPoint("spool.erase.before");
  const char* suffix = complete_ ? kSpoolResult : kSpoolPart;
  unlink(absl::StrCat(directory_, "/", id_, suffix).c_str());
}

}  // namespace qk
