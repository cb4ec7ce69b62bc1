#include "server/common/log.h"

#include <cmath>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/base/utf8.h"
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

struct ToJson {
  std::string operator()(const std::string& value) const {
    return absl::StrCat("\"", JsonEscape(value), "\"");
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
                      "\",\"level\":\"", level, "\",\"event\":\"",
                      JsonEscape(event), "\"");
}

void LogOfGrpc(gpr_log_func_args* args) {
  const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
  const std::string line =
      absl::StrCat(LineStart(error ? "error" : "info", "grpc"),
                   ",\"message\":\"", JsonEscape(args->message), "\"}\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void RouteLibraryLogs() {
  gpr_set_log_function(LogOfGrpc);
  google::protobuf::SetLogHandler(nullptr);
}

std::string JsonEscape(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t valid = FindInvalidUtf8(text).value_or(text.size());
    for (const char c : text.substr(0, valid)) {
      if (c == '"' || c == '\\') {
        absl::StrAppend(&out, "\\", absl::string_view(&c, 1));
      } else if (static_cast<unsigned char>(c) < 0x20) {
        absl::StrAppendFormat(&out, "\\u%04x", c);
      } else {
        out += c;
      }
    }
    if (valid == text.size()) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(valid + 1);
  }
  return out;
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
