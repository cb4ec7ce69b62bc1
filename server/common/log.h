// The log: one JSON object per line on stderr, or in a file. It never contains
// a token, and contains prompts only if `log_prompts` is set. Nobody who logs
// waits for it (LogWriter).
#ifndef QKSCOPE_SERVER_COMMON_LOG_H_
#define QKSCOPE_SERVER_COMMON_LOG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/common/log_writer.h"

namespace qk {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

struct LogField {
  const char* key;
  std::variant<std::string, int64_t, double, bool> value;
};

// Thread-safe.
class Log {
 public:
  // Writes to stderr.
  explicit Log(LogLevel level);
  // Writes to a file or, if `file` is empty, to stderr. Errors are those of
  // LogWriter::Create.
  static absl::StatusOr<std::unique_ptr<Log>> Create(LogLevel level,
                                                     const std::string& file);
  // Waits for the lines that are queued, for 2 s at most.
  ~Log();

  // {"ts":"...","level":"info","event":"...",fields...}. Never waits. A line
  // that cannot be queued or written is counted, and the next line that can be
  // follows a line {"event":"log_dropped","lines":N}.
  void Write(LogLevel level, absl::string_view event,
             const std::vector<LogField>& fields);
  void Info(absl::string_view event, const std::vector<LogField>& fields) {
    Write(LogLevel::kInfo, event, fields);
  }
  void Warn(absl::string_view event, const std::vector<LogField>& fields) {
    Write(LogLevel::kWarn, event, fields);
  }
  void Error(absl::string_view event, const std::vector<LogField>& fields) {
    Write(LogLevel::kError, event, fields);
  }

  // Opens the log file's name again, for whoever has renamed the file. If that
  // fails, the log goes on in the old file and says so.
  void Reopen();
  // Waits until all lines are written, for 2 s at most.
  void Flush() { writer_->Flush(); }
  // Lines lost so far.
  int64_t dropped() const { return writer_->dropped(); }

  // Makes an abort of the process, as a broken invariant here or in gRPC causes
  // it, wait until the lines are written, for a fifth of a second at most.
  // Holds as long as the log lives, one log at a time.
  void KeepLastWords();
  // Sends gRPC's own messages to this log as long as it lives, one log at a
  // time. Suppresses protobuf's messages about parse errors, because any client
  // could fill the log with them.
  void TakeLibraryLogs();

 private:
  Log(LogLevel level, std::unique_ptr<LogWriter> writer);

  const LogLevel level_;
  const std::unique_ptr<LogWriter> writer_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_LOG_H_
