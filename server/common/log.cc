#include "server/common/log.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/base/check.h"
#include "engine/base/json_string.h"
#include "engine/base/mutex.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "server/common/guarded.h"

namespace qk {
namespace {

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

std::string Line(LogLevel level, absl::string_view event,
                 const std::vector<LogField>& fields) {
  std::string line = absl::StrCat(
      "{\"ts\":\"",
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                       absl::UTCTimeZone()),
      "\",\"level\":\"", LevelName(level), "\",\"event\":", Quoted(event));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",\"", field.key,
                    "\":", std::visit(ToJson(), field.value));
  }
  return line + "}\n";
}

std::string LossLine(int64_t lines) {
  return Line(LogLevel::kWarn, "log_dropped", {{"lines", lines}});
}

// The log that has gRPC's messages. Global, because gRPC's function gets no
// argument from us.
Mutex library_mutex;
Log* library_log ABSL_GUARDED_BY(library_mutex) = nullptr;

// Lines that an abort waits for. Global, because a signal handler belongs to
// the process.
std::atomic<const std::atomic<int64_t>*> last_words{nullptr};

// Makes only async-signal-safe calls; the writer's thread does the work. The
// signal may come from outside, as that of systemd's watchdog does: then only
// its second delivery, after this handler, ends the process.
void OnAbort(int) {
  constexpr timespec kMoment = {0, 1'000'000};
  constexpr int kMoments = 200;
  const std::atomic<int64_t>* const waiting = last_words;
  for (int i = 0; i < kMoments && waiting != nullptr && *waiting > 0; ++i) {
    nanosleep(&kMoment, nullptr);
  }
  raise(SIGABRT);
}

void WriteGrpcLog(gpr_log_func_args* args) {
  MutexLock lock(&library_mutex);
  if (library_log == nullptr) return;
  const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
  library_log->Write(error ? LogLevel::kError : LogLevel::kInfo, "grpc",
                     {{"message", std::string(args->message)}});
}

}  // namespace

Log::Log(LogLevel level, std::unique_ptr<LogWriter> writer)
    : level_(level), writer_(std::move(writer)) {}

Log::Log(LogLevel level)
    : Log(level, std::make_unique<LogWriter>(STDERR_FILENO, LossLine)) {}

absl::StatusOr<std::unique_ptr<Log>> Log::Create(LogLevel level,
                                                 const std::string& file) {
  if (file.empty()) return std::make_unique<Log>(level);
  QK_ASSIGN_OR_RETURN(std::unique_ptr<LogWriter> writer,
                      LogWriter::Create(file, LossLine));
  return std::unique_ptr<Log>(new Log(level, std::move(writer)));
}

Log::~Log() {
  const std::atomic<int64_t>* own = writer_->waiting();
  last_words.compare_exchange_strong(own, nullptr);
  MutexLock lock(&library_mutex);
  if (library_log == this) library_log = nullptr;
}

void Log::Write(LogLevel level, absl::string_view event,
                const std::vector<LogField>& fields) {
  if (level < level_) return;
  const absl::Status queued =
      Guarded("log", [&] { writer_->Write(Line(level, event, fields)); });
  if (!queued.ok()) writer_->CountLost();
}

void Log::Reopen() {
  writer_->Reopen([](const absl::Status& failure) {
    return Line(LogLevel::kError, "log_not_reopened",
                {{"reason", std::string(failure.message())}});
  });
}

void Log::KeepLastWords() {
  last_words = writer_->waiting();
  struct sigaction action = {};
  action.sa_handler = OnAbort;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGABRT, &action, nullptr);
}

void Log::TakeLibraryLogs() {
  {
    MutexLock lock(&library_mutex);
    library_log = this;
  }
  gpr_set_log_function(WriteGrpcLog);
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace qk
