#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/crc32c.h"
#include "google/protobuf/stubs/logging.h"
#include "server/results/spool_file.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr char kId[] = "0123456789abcdef";
constexpr size_t kHead = 9;  // of a record: type, length, CRC-32C

// A folder with one file, which holds the result kId.
class Folder {
 public:
  Folder() {
    QK_CHECK(mkdtemp(path_.data()) != nullptr);
    const std::string file = absl::StrCat(path_, "/", kId, qk::kSpoolResult);
    fd_ = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    QK_CHECK(fd_ >= 0);
  }
  ~Folder() {
    close(fd_);
    std::filesystem::remove_all(path_);
  }

  void Write(const std::string& bytes) const {
    const auto size = static_cast<ssize_t>(bytes.size());
    QK_CHECK(pwrite(fd_, bytes.data(), bytes.size(), 0) == size);
    QK_CHECK(ftruncate(fd_, size) == 0);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = std::filesystem::temp_directory_path() / "qk_fuzz_XXXXXX";
  int fd_ = -1;
};

uint32_t LittleEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) {
    value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  }
  return value;
}

// Gives the records the right checksums: the reader would not look at anything
// after a wrong one.
std::string WithChecksums(std::string file) {
  size_t at = 0;
  while (at + kHead <= file.size()) {
    const size_t size = LittleEndian(file, at + 1);
    if (size > file.size() - at - kHead) break;
    const uint32_t crc = qk::Crc32c(file.data() + at + kHead, size);
    for (size_t i = 0; i < 4; ++i) {
      file[at + 5 + i] = static_cast<char>(crc >> (8 * i));
    }
    at += kHead + size;
  }
  return file;
}

void Check(const std::string& bytes) {
  static const Folder folder;
  folder.Write(bytes);
  qk::SpoolFolder spool_folder(folder.path(), 1);
  const auto file = qk::SpoolFile::Open(&spool_folder, kId);
  if (!file.ok()) {
    QK_CHECK(absl::IsDataLoss(file.status()));
    qk::fuzz::CheckMessage(file.status());
    return;
  }
  const qk::SpoolFile& spool = **file;
  QK_CHECK(spool.header().request_id() == kId);
  QK_CHECK(spool.bytes() == static_cast<int64_t>(bytes.size()));
  // Events end before the end does, however many the end counts.
  int64_t offset = spool.first_event();
  for (;;) {
    const auto event = spool.Read(offset);
    const auto next = spool.Skip(offset, 1);
    if (!event.ok()) {
      QK_CHECK(absl::IsDataLoss(event.status()));
      qk::fuzz::CheckMessage(event.status());
      break;
    }
    qk::fuzz::Touch(event->payload.view());
    QK_CHECK(next.ok() && *next == event->next);
    QK_CHECK(event->next > offset && event->next < spool.bytes());
    offset = event->next;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);  // as the server does
  const std::string file(reinterpret_cast<const char*>(data), size);
  Check(file);
  Check(WithChecksums(file));
  return 0;
}
