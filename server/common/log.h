// The log: one JSON object per line on stderr. It never contains a token, and
// contains prompts only if `log_prompts` is set.
#ifndef QKSCOPE_SERVER_COMMON_LOG_H_
#define QKSCOPE_SERVER_COMMON_LOG_H_

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace spdlog {
class logger;
}

namespace qk {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

struct LogField {
  const char* key;
  std::variant<std::string, int64_t, double, bool> value;
};

// Thread-safe.
class Log {
 public:
  explicit Log(LogLevel level);
  ~Log();

  // {"ts":"...","level":"info","event":"...",fields...}
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

 private:
  std::shared_ptr<spdlog::logger> logger_;
};

// Writes gRPC's own messages as lines of the same form. Suppresses protobuf's
// messages about parse errors, because any client could fill the log with them.
void RouteLibraryLogs();

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_LOG_H_
