// Writes lines to stderr or to a file on a thread of its own, so that nobody
// who logs waits for a reader, a disk or a terminal.
#ifndef QKSCOPE_SERVER_COMMON_LOG_WRITER_H_
#define QKSCOPE_SERVER_COMMON_LOG_WRITER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace qk {

// Thread-safe.
class LogWriter {
 public:
  // Lines that wait may have this many bytes together.
  static constexpr int64_t kMaxWaiting = int64_t{4} << 20;

  // Makes the line that says how many lines were lost before it.
  using LossLine = std::function<std::string(int64_t lines)>;
  // Makes the line that says why the file could not be opened again.
  using FailureLine = std::function<std::string(const absl::Status&)>;

  // Writes to `fd`, which stays open.
  LogWriter(int fd, LossLine loss_line);
  // Appends to a regular file, which is created with mode 0640. Errors: `FILE:
  // cannot be written: reason`, with the codes of ErrnoStatus.
  static absl::StatusOr<std::unique_ptr<LogWriter>> Create(
      const std::string& file, LossLine loss_line);
  // As Flush; then leaves the thread to itself if it is stuck in a write.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // Queues a line, which ends in '\n'. Never waits: a line that does not fit is
  // lost and counted.
  void Write(std::string line);
  // Counts a line that its writer could not even make.
  void CountLost();
  // Opens the file's name again, before the next line, for whoever has renamed
  // the old file. If that fails, the old file stays in use and gets the line
  // that `failure_line` makes, on the writer's thread. Nothing happens if there
  // is no file.
  void Reopen(FailureLine failure_line);
  // Waits until all lines are written, for 2 s at most. False: some are not.
  bool Flush();

  // Lines that were lost: the queue was full, or writing failed.
  int64_t dropped() const;
  // Lines that are not written yet, for a signal handler. Lives as long as the
  // writer.
  const std::atomic<int64_t>* waiting() const;

 private:
  struct State;

  LogWriter(std::shared_ptr<State> state);

  const std::shared_ptr<State> state_;  // the thread's, too
  std::thread thread_;
};

// OK if LogWriter could write to the file now. Creates nothing.
absl::Status CheckLogFile(const std::string& file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_LOG_WRITER_H_
