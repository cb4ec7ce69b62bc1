#include "server/common/log_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "engine/base/mutex.h"
#include "server/common/guarded.h"

namespace qk {
namespace {

// How long an orderly end may wait for a reader.
constexpr absl::Duration kPatience = absl::Seconds(2);

absl::Status CannotWrite(const std::string& file, int error) {
  return ErrnoStatus(error,
                     absl::StrCat(file, ": cannot be written: ",
                                  error == EISDIR ? "is a folder, not a file"
                                                  : std::strerror(error)));
}

absl::Status CheckRegular(const std::string& file, const struct stat& info) {
  if (S_ISDIR(info.st_mode)) return CannotWrite(file, EISDIR);
  if (S_ISREG(info.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": cannot be written: is not a regular file"));
}

absl::StatusOr<int> OpenLog(const std::string& file) {
  struct stat info;
  // Looks first: opening some devices has effects.
  if (stat(file.c_str(), &info) == 0) {
    QK_RETURN_IF_ERROR(CheckRegular(file, info));
  } else if (errno != ENOENT) {
    return CannotWrite(file, errno);
  }
  const int fd = open(
      file.c_str(),
      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
  if (fd < 0) return CannotWrite(file, errno);
  absl::Status status = fstat(fd, &info) == 0 ? CheckRegular(file, info)
                                              : CannotWrite(file, errno);
  if (status.ok()) return fd;
  close(fd);
  return status;
}

}  // namespace

struct LogWriter::State {
  const std::string file;  // empty: there is none
  const LossLine loss_line;
  int fd = -1;           // the thread's own
  bool cut_off = false;  // the thread's own: the last line has no end

  std::atomic<int64_t> dropped = 0;
  std::atomic<int64_t> waiting = 0;  // in `lines`, or being written
  Mutex mutex;
  CondVar changed;
  std::deque<std::string> lines ABSL_GUARDED_BY(mutex);
  int64_t bytes ABSL_GUARDED_BY(mutex) = 0;     // of `lines`
  int64_t unsaid ABSL_GUARDED_BY(mutex) = 0;    // lost lines nobody was told of
  bool writing ABSL_GUARDED_BY(mutex) = false;  // a line that left `lines`
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  bool done ABSL_GUARDED_BY(mutex) = false;
  FailureLine reopen ABSL_GUARDED_BY(mutex);

  State(std::string name, int descriptor, LossLine make_loss_line)
      : file(std::move(name)),
        loss_line(std::move(make_loss_line)),
        fd(descriptor) {}
  ~State() {
    if (!file.empty()) close(fd);
  }

  void Lose(int64_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    dropped += count;
    unsaid += count;
  }
  bool WriteAll(const std::string& text);
  void OpenAgain(const FailureLine& failure_line);
  void Loop();
};

// Returns false if the text could not be written, or not all of it.
bool LogWriter::State::WriteAll(const std::string& text) {
  const std::string out = cut_off ? absl::StrCat("\n", text) : text;
  for (size_t done = 0; done < out.size();) {
    const ssize_t count = write(fd, out.data() + done, out.size() - done);
    if (count > 0) {
      done += static_cast<size_t>(count);
      cut_off = out[done - 1] != '\n';
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || errno != EAGAIN) return false;
    // Somebody who shares the descriptor made it non-blocking.
    pollfd ready = {fd, POLLOUT, 0};
    poll(&ready, 1, /*timeout=*/-1);
  }
  return true;
}

void LogWriter::State::OpenAgain(const FailureLine& failure_line) {
  const absl::StatusOr<int> opened = OpenLog(file);
  if (!opened.ok()) {
    WriteAll(failure_line(opened.status()));
    return;
  }
  close(fd);
  fd = *opened;
  cut_off = false;
}

void LogWriter::State::Loop() {
  for (;;) {
    std::string line;
    int64_t lost = 0;
    FailureLine reopen_now;
    {
      MutexLock lock(&mutex);
      changed.Wait(&mutex, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
        return stopping || !lines.empty() || reopen != nullptr;
      });
      reopen_now = std::exchange(reopen, nullptr);
      if (!lines.empty()) {
        line = std::move(lines.front());
        lines.pop_front();
        bytes -= static_cast<int64_t>(line.size());
        lost = std::exchange(unsaid, 0);
        writing = true;
      } else if (stopping) {
        done = true;
        changed.NotifyAll();
        return;
      }
    }
    bool written = false;
    // No memory: the line is lost.
    Guarded("log", [&] {
      if (reopen_now != nullptr) OpenAgain(reopen_now);
      written = WriteAll(lost > 0 ? absl::StrCat(loss_line(lost), line) : line);
    }).IgnoreError();
    if (line.empty()) continue;
    MutexLock lock(&mutex);
    writing = false;
    --waiting;
    if (!written) {
      Lose(1);
      unsaid += lost;
    }
    if (lines.empty()) changed.NotifyAll();
  }
}

LogWriter::LogWriter(std::shared_ptr<State> state) : state_(std::move(state)) {
  thread_ = std::thread([s = state_] { s->Loop(); });
}

LogWriter::LogWriter(int fd, LossLine loss_line)
    : LogWriter(std::make_shared<State>("", fd, std::move(loss_line))) {}

absl::StatusOr<std::unique_ptr<LogWriter>> LogWriter::Create(
    const std::string& file, LossLine loss_line) {
  QK_ASSIGN_OR_RETURN(const int fd, OpenLog(file));
  return std::unique_ptr<LogWriter>(
      new LogWriter(std::make_shared<State>(file, fd, std::move(loss_line))));
}

LogWriter::~LogWriter() {
  bool done = false;
  {
    MutexLock lock(&state_->mutex);
    state_->stopping = true;
    state_->changed.NotifyAll();
    done = state_->changed.WaitFor(&state_->mutex, kPatience,
                                   [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                                       state_->mutex) { return state_->done; });
  }
  done ? thread_.join() : thread_.detach();
}

void LogWriter::Write(std::string line) {
  {
    MutexLock lock(&state_->mutex);
    const auto bytes = static_cast<int64_t>(line.size());
    if (state_->bytes + bytes > kMaxWaiting) {
      state_->Lose(1);
      return;
    }
    state_->lines.push_back(std::move(line));
    state_->bytes += bytes;
    ++state_->waiting;
  }
  state_->changed.NotifyAll();
}

void LogWriter::CountLost() {
  MutexLock lock(&state_->mutex);
  state_->Lose(1);
}

void LogWriter::Reopen(FailureLine failure_line) {
  if (state_->file.empty()) return;
  {
    MutexLock lock(&state_->mutex);
    state_->reopen = std::move(failure_line);
  }
  state_->changed.NotifyAll();
}

bool LogWriter::Flush() {
  MutexLock lock(&state_->mutex);
  return state_->changed.WaitFor(
      &state_->mutex, kPatience,
      [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
        return state_->lines.empty() && !state_->writing;
      });
}

int64_t LogWriter::dropped() const { return state_->dropped; }

const std::atomic<int64_t>* LogWriter::waiting() const {
  return &state_->waiting;
}

absl::Status CheckLogFile(const std::string& file) {
  struct stat info;
  if (stat(file.c_str(), &info) == 0) {
    QK_RETURN_IF_ERROR(CheckRegular(file, info));
    return access(file.c_str(), W_OK) == 0 ? absl::OkStatus()
                                           : CannotWrite(file, errno);
  }
  if (errno != ENOENT) return CannotWrite(file, errno);
  const size_t slash = file.rfind('/');
  const std::string folder = slash == std::string::npos ? "."
                             : slash == 0               ? "/"
                                                        : file.substr(0, slash);
  if (access(folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return CannotWrite(file, errno);
}

}  // namespace qk
