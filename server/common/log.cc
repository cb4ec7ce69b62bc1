#include "server/common/log.h"

#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/base/json_string.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "spdlog/logger.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace qk {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

std::string Quoted(absl::string_view text) {
  return JsonString(text, ReplacementCharacter::kUtf8);
}

struct ToJson {
  std::string operator()(const std::string& value) const {
    return Quoted(value);
  }
  std::string operator()(int64_t value) const { return absl::StrCat(value); }
  std::string operator()(double value) const {
    return std::isfinite(value) ? absl::StrFormat("%.6g", value) : "null";
  }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
};

std::string LineStart(const char* level, absl::string_view event) {
  return absl::StrCat("{\"ts\":\"",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                                       absl::UTCTimeZone()),
                      "\",\"level\":\"", level, "\",\"event\":", Quoted(event));
}

void WriteGrpcLog(gpr_log_func_args* args) {
  const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
  const std::string line =
      absl::StrCat(LineStart(error ? "error" : "info", "grpc"),
                   ",\"message\":", Quoted(args->message), "}\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void RouteLibraryLogs() {
  gpr_set_log_function(WriteGrpcLog);
  google::protobuf::SetLogHandler(nullptr);
}

Log::Log(LogLevel level)
    : logger_(std::make_shared<spdlog::logger>(
          "qkscoped", std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  logger_->set_pattern("%v");
  logger_->set_level(ToSpdlog(level));
  logger_->flush_on(spdlog::level::debug);
}

Log::~Log() = default;

void Log::Write(LogLevel level, absl::string_view event,
                const std::vector<LogField>& fields) {
  if (!logger_->should_log(ToSpdlog(level))) return;
  std::string line = LineStart(LevelName(level), event);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",\"", field.key,
                    "\":", std::visit(ToJson(), field.value));
  }
  line += "}";
  logger_->log(ToSpdlog(level), "{}", line);
}

}  // namespace qk
