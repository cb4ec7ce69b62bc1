#include "server/results/spool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "engine/base/request_id.h"
#include "engine/base/utf8.h"
#include "engine/base/write_file.h"
#include "server/common/delay_point.h"
#include "server/common/retry_after.h"

namespace qk {
namespace {

constexpr char kHeader = 'H', kEvent = 'E', kEnd = 'Z';
// Bytes before a record's payload: type, length, CRC-32C (little-endian).
constexpr int64_t kRecordHeaderBytes = 1 + 4 + 4;
// Far above the size of any event, which gRPC limits to 4 MiB.
constexpr uint32_t kMaxPayload = 64u << 20;
// The end lies in the last bytes of the file: its message is cut off.
constexpr size_t kMaxEndMessage = 2048;
constexpr int64_t kLongestEnd = 4096;
// Bytes that Skip reads at a time, which hold many small events.
constexpr int64_t kSkipBytes = 4096;
// Nobody knows when a full disk will have room. Results expire meanwhile.
constexpr absl::Duration kDiskFullRetry = absl::Seconds(30);
constexpr absl::Duration kShortageRetry = absl::Seconds(1);

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

// Reads up to `size` bytes; returns how many there are, -1 on an error.
int64_t ReadSome(int fd, int64_t offset, int64_t size, char* out) {
  int64_t done = 0;
  while (done < size) {
    const ssize_t got =
        pread(fd, out + done, static_cast<size_t>(size - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += got;
  }
  return done;
}

absl::Status Damaged(const std::string& id, const char* what, int64_t offset) {
  return absl::DataLossError(
      absl::StrFormat("result %s: %s (offset %d)", id, what, offset));
}

// A prefix of a message that is UTF-8, as protobuf's strings must be.
std::string EndMessage(absl::string_view message) {
  message = message.substr(0, kMaxEndMessage);
  const auto invalid = FindInvalidUtf8(message);
  return std::string(invalid.has_value()
                         ? message.substr(0, static_cast<size_t>(*invalid))
                         : message);
}

}  // namespace

absl::Status SpoolFolder::Failed(const char* what) const {
  const int error = errno;
  const std::string message =
      absl::StrCat("spool: cannot ", what, ": ", std::strerror(error));
  absl::Status status = absl::UnavailableError(message);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      status =
          WithRetryAfter(absl::ResourceExhaustedError(message), kDiskFullRetry);
      break;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      status =
          WithRetryAfter(absl::ResourceExhaustedError(message), kShortageRetry);
      break;
  }
  Report(status);
  return status;
}

SpoolFile::~SpoolFile() {
  {
    MutexLock lock(&mutex_);
    if (!complete_ && !std::exchange(removed_, true)) {
      DelayPoint("spool.erase.before");
      unlink(Path().c_str());
    }
  }
  folder_->files()->Drop(this);
}

std::string SpoolFile::Path() const {
  return absl::StrCat(folder_->path(), "/", header_.request_id(),
                      complete_ ? kSpoolResult : kSpoolPart);
}

bool SpoolFile::removed() const {
  MutexLock lock(&mutex_);
  return removed_;
}

bool SpoolFile::Exists() const {
  MutexLock lock(&mutex_);
  return access(Path().c_str(), F_OK) == 0;
}

absl::StatusOr<std::unique_ptr<SpoolFile>> SpoolFile::Create(
    SpoolFolder* folder, const ::qkscope::v1::SpoolHeader& header) {
  QK_CHECK(IsRequestId(header.request_id()));
  std::unique_ptr<SpoolFile> file(new SpoolFile(folder, header));
  DelayPoint("spool.create.before");
  {
    MutexLock lock(&file->mutex_);
    const int fd =
        open(file->Path().c_str(),
             O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
      file->removed_ = true;  // there is nothing to remove
      if (errno == EEXIST) return absl::AlreadyExistsError("spool: same id");
      return folder->Failed("make a file");
    }
    folder->files()->Keep(file.get(), std::make_shared<OpenFile>(fd));
  }
  DelayPoint("spool.create.after");
  QK_RETURN_IF_ERROR(file->WriteRecord(kHeader, header.SerializeAsString()));
  file->first_event_ = file->bytes_;
  return file;
}

absl::StatusOr<std::shared_ptr<OpenFile>> SpoolFile::Use() const {
  MutexLock lock(&mutex_);
  if (removed_) return absl::NotFoundError("request_id: no such result");
  if (auto file = folder_->files()->Find(this)) return file;
  const int flags = complete_ ? O_RDONLY : O_RDWR;
  const int fd =
      open(Path().c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) {
    folder_->Failed("open a result").IgnoreError();
    return absl::NotFoundError("request_id: no such result");
  }
  if (fd < 0) return folder_->Failed("open a result");
  auto file = std::make_shared<OpenFile>(fd);
  folder_->files()->Keep(this, file);
  return file;
}

absl::Status SpoolFile::WriteRecord(char type, absl::string_view payload) {
  QK_CHECK(payload.size() <= kMaxPayload);
  QK_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, Use());
  std::string record(kRecordHeaderBytes, '\0');
  record[0] = type;
  Put32(static_cast<uint32_t>(payload.size()), &record[1]);
  Put32(Crc32c(payload.data(), payload.size()), &record[5]);
  record.append(payload.data(), payload.size());
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t wrote =
        pwrite(file->fd(), record.data() + done, record.size() - done,
               bytes_ + static_cast<int64_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return folder_->Failed("write");
    done += static_cast<size_t>(wrote);
  }
  bytes_ += static_cast<int64_t>(record.size());
  DelayPoint("spool.record.after");
  return absl::OkStatus();
}

absl::Status SpoolFile::Append(absl::string_view event) {
  const absl::Status status = WriteRecord(kEvent, event);
  return removed() ? absl::OkStatus() : status;
}

absl::Status SpoolFile::Complete(::qkscope::v1::SpoolEnd end) {
  end.set_message(EndMessage(end.message()));
  const auto complete = [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(WriteRecord(kEnd, end.SerializeAsString()));
    QK_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, Use());
    DelayPoint("spool.sync.before");
    if (fsync(file->fd()) != 0) return folder_->Failed("sync");
    DelayPoint("spool.sync.after");
    return Rename();
  };
  const absl::Status status = complete();
  return removed() ? absl::OkStatus() : status;
}

absl::Status SpoolFile::Rename() {
  DelayPoint("spool.rename.before");
  {
    MutexLock lock(&mutex_);
    if (removed_) return absl::OkStatus();
    const std::string part = Path();
    complete_ = true;
    if (rename(part.c_str(), Path().c_str()) != 0) {
      complete_ = false;
      return folder_->Failed("rename");
    }
  }
  DelayPoint("spool.rename.after");
  return SyncFolder(folder_->path()) ? absl::OkStatus()
                                     : folder_->Failed("sync the directory");
}

absl::StatusOr<SpoolFile::Event> SpoolFile::Read(int64_t offset) const {
  QK_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, Use());
  const std::string& id = header_.request_id();
  char prefix[kRecordHeaderBytes];
  int64_t got = ReadSome(file->fd(), offset, kRecordHeaderBytes, prefix);
  if (got < 0) return folder_->Failed("read");
  if (got < kRecordHeaderBytes || prefix[0] != kEvent ||
      Get32(prefix + 1) > kMaxPayload) {
    return Damaged(id, "not an event", offset);
  }
  Event event;
  event.payload = Bytes(Get32(prefix + 1));
  const auto size = static_cast<int64_t>(event.payload.size());
  event.next = offset + kRecordHeaderBytes + size;
  got = ReadSome(file->fd(), offset + kRecordHeaderBytes, size,
                 event.payload.data());
  if (got < 0) return folder_->Failed("read");
  if (got < size) return Damaged(id, "the event is cut off", offset);
  if (Crc32c(event.payload.data(), event.payload.size()) != Get32(prefix + 5)) {
    return Damaged(id, "wrong checksum", offset);
  }
  return event;
}

absl::StatusOr<int64_t> SpoolFile::Skip(int64_t offset, int64_t count) const {
  QK_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, Use());
  char block[kSkipBytes];
  int64_t begin = 0, end = 0;  // of the block in the file
  for (; count > 0; --count) {
    if (offset < begin || offset + kRecordHeaderBytes > end) {
      const int64_t got = ReadSome(file->fd(), offset, kSkipBytes, block);
      if (got < 0) return folder_->Failed("read");
      begin = offset;
      end = offset + got;
    }
    const char* prefix = block + (offset - begin);
    if (offset + kRecordHeaderBytes > end || prefix[0] != kEvent ||
        Get32(prefix + 1) > kMaxPayload) {
      return Damaged(header_.request_id(), "not an event", offset);
    }
    offset += kRecordHeaderBytes + Get32(prefix + 1);
  }
  return offset;
}

absl::StatusOr<std::unique_ptr<SpoolFile>> SpoolFile::Open(
    SpoolFolder* folder, const std::string& id) {
  QK_CHECK(IsRequestId(id));
  const std::string path = absl::StrCat(folder->path(), "/", id, kSpoolResult);
  const int fd =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return absl::NotFoundError(path);
  if (fd < 0 && errno == ELOOP) return Damaged(id, "not a regular file", 0);
  if (fd < 0) return folder->Failed("open a result");
  const absl::Cleanup close_fd = [fd] { close(fd); };
  std::unique_ptr<SpoolFile> file(new SpoolFile(folder, {}));
  {
    MutexLock lock(&file->mutex_);
    file->complete_ = true;
  }
  struct stat info;
  if (fstat(fd, &info) != 0) return folder->Failed("look at a result");
  if (!S_ISREG(info.st_mode)) return Damaged(id, "not a regular file", 0);
  file->bytes_ = info.st_size;
  QK_RETURN_IF_ERROR(file->ReadEnds(fd, id));
  return file;
}

absl::Status SpoolFile::ReadHeader(int fd, const std::string& id) {
  char prefix[kRecordHeaderBytes];
  int64_t got = ReadSome(fd, 0, kRecordHeaderBytes, prefix);
  if (got < 0) return folder_->Failed("read");
  const int64_t length = Get32(prefix + 1);
  first_event_ = kRecordHeaderBytes + length;
  if (got < kRecordHeaderBytes || prefix[0] != kHeader ||
      length > kMaxPayload || first_event_ > bytes_) {
    return Damaged(id, "no header", 0);
  }
  std::string text(static_cast<size_t>(length), '\0');
  got = ReadSome(fd, kRecordHeaderBytes, length, text.data());
  if (got < 0) return folder_->Failed("read");
  if (got < length || Crc32c(text.data(), text.size()) != Get32(prefix + 5) ||
      !header_.ParseFromString(text)) {
    return Damaged(id, "wrong checksum", 0);
  }
  return absl::OkStatus();
}

// The end is the record that ends where the file does.
absl::Status SpoolFile::ReadEnds(int fd, const std::string& id) {
  QK_RETURN_IF_ERROR(ReadHeader(fd, id));
  if (header_.request_id() != id) {
    return Damaged(id, "belongs to another request", 0);
  }
  const int64_t begin = std::max(first_event_, bytes_ - kLongestEnd);
  std::string tail(static_cast<size_t>(bytes_ - begin), '\0');
  const int64_t got =
      ReadSome(fd, begin, static_cast<int64_t>(tail.size()), tail.data());
  if (got < 0) return folder_->Failed("read");
  tail.resize(static_cast<size_t>(got));
  for (size_t i = 0; i + kRecordHeaderBytes <= tail.size(); ++i) {
    const char* const prefix = tail.data() + i;
    const absl::string_view rest =
        absl::string_view(tail).substr(i + kRecordHeaderBytes);
    if (prefix[0] == kEnd && Get32(prefix + 1) == rest.size() &&
        Crc32c(rest.data(), rest.size()) == Get32(prefix + 5) &&
        end_.ParseFromArray(rest.data(), static_cast<int>(rest.size()))) {
      return end_.events() >= 0 ? absl::OkStatus()
                                : Damaged(id, "no events", begin);
    }
  }
  return Damaged(id, "no end", bytes_);
}

void SpoolFile::Remove() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(removed_, true)) return;
    DelayPoint("spool.erase.before");
    unlink(Path().c_str());
  }
  folder_->files()->Drop(this);
}

}  // namespace qk
