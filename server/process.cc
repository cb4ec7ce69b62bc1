#include "server/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/base/bounded_stderr.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "engine/base/monotonic.h"
#include "engine/base/out_of_memory.h"
#include "engine/create_backend.h"
#include "server/common/guarded.h"
#include "server/common/log.h"
#include "server/common/text_file.h"
#include "server/config/config_check.h"
#include "server/config/flags.h"
#include "server/config/options.h"
#include "server/documents.h"
#include "server/net/systemd.h"
#include "server/server.h"

namespace qk {
namespace {

using ::qkscope::v1::ServerConfig;

// The numbers are those of sysexits.h. The systemd unit restarts the server
// after all but the first.
constexpr int kExitConfig = 78;     // EX_CONFIG: what it was told is wrong
constexpr int kExitTemporary = 75;  // EX_TEMPFAIL: the machine cannot do it now
constexpr int kExitOs = 71;         // EX_OSERR: the system failed
// EX_SOFTWARE: the device is lost. A new process may find it again.
constexpr int kExitDevice = 70;

int ExitStatusOf(const absl::Status& status) {
  if (!IsMachineFault(status)) return kExitConfig;
  return absl::IsInternal(status) || absl::IsUnknown(status) ? kExitOs
                                                             : kExitTemporary;
}

void PrintLine(absl::string_view message) {
  const std::string line = absl::StrCat("qkscoped: ", message, "\n");
  WriteStderr(line.data(), line.size());
}

int Fail(const absl::Status& status) {
  PrintLine(status.message());
  return ExitStatusOf(status);
}

// An exception has left a thread. A system that has no memory or no threads is
// reported as that; anything else is a bug, and leaves a core dump.
[[noreturn]] void OnTerminate() {
  try {
    if (std::current_exception() != nullptr) {
      std::rethrow_exception(std::current_exception());
    }
  } catch (const std::bad_alloc&) {
    std::_Exit(Fail(OutOfMemory()));
  } catch (const std::system_error& error) {
    std::_Exit(Fail(absl::InternalError(error.what())));
  } catch (const std::exception& error) {
    PrintLine(absl::StrCat("exception: ", error.what()));
  } catch (...) {
    PrintLine("unknown exception");
  }
  std::abort();
}

// Without this, the first socket could become what is written to as stderr.
void OpenStandardStreams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // The lowest free descriptor is this one.
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDWR);
  }
}

absl::StatusOr<ServerOptions> CheckedOptions(const ServerConfig& config,
                                             const std::string& source,
                                             std::vector<absl::Status>* found) {
  QK_ASSIGN_OR_RETURN(ServerOptions options,
                      OptionsFromConfig(config, source, found));
  absl::Status backend = CheckBackendName(options.backend);
  if (backend.ok()) backend = CheckMatMulName(options.matmul);
  if (backend.ok()) return options;
  return absl::Status(backend.code(),
                      absl::StrCat(source, ": ", backend.message()));
}

struct ReadConfig {
  ServerConfig config;
  ServerOptions options;  // of that
};

// Reads the configuration file and lets flags override it. The file is first
// checked alone, so that an error names where the value came from. `found` has
// all problems if there may be several.
absl::StatusOr<ReadConfig> ReadOptions(const Flags& flags,
                                       std::vector<absl::Status>* found) {
  ServerConfig config;
  if (flags.config_file.has_value()) {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        ReadTextFile("--config", *flags.config_file));
    QK_ASSIGN_OR_RETURN(config, ParseConfig(text, *flags.config_file));
    QK_RETURN_IF_ERROR(
        CheckedOptions(config, *flags.config_file, found).status());
  }
  const bool file_has_users = !config.users().empty();
  config.MergeFrom(flags.config);
  QK_ASSIGN_OR_RETURN(ServerOptions options,
                      CheckedOptions(config, "flags", found));
  options.version = QK_VERSION;
  options.documents = Documents();
  if (file_has_users) options.access.config_file = *flags.config_file;
  QK_RETURN_IF_ERROR(CheckAccess(options));
  return ReadConfig{std::move(config), std::move(options)};
}

int FailAll(const std::vector<absl::Status>& problems) {
  int exit_status = 0;
  for (const absl::Status& problem : problems) {
    // The worst is a bad configuration, which has the largest number.
    exit_status = std::max(exit_status, Fail(problem));
  }
  return exit_status;
}

int CheckConfig(const ReadConfig& read) {
  const ConfigFindings findings = CheckConfiguration(read.config, read.options);
  for (const std::string& warning : findings.warnings) {
    PrintLine(absl::StrCat("warning: ", warning));
  }
  if (!findings.problems.empty()) return FailAll(findings.problems);
  const size_t models = read.options.models.size();
  std::printf("configuration is valid: %zu model%s\n", models,
              models == 1 ? "" : "s");
  return 0;
}

// The signals that end the process. It sends SIGUSR1 to itself if a model could
// not be loaded or the device is lost.
sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGUSR1);
  return set;
}

// Blocks those signals and SIGHUP in this thread and all threads that it
// starts.
sigset_t BlockSignals() {
  sigset_t set = EndSignals();
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return set;
}

// Waits for calls in progress, up to the grace period or the next signal.
void Drain(Server* server, absl::Duration grace) {
  const sigset_t signals = EndSignals();
  constexpr timespec kNoWait = {};
  const absl::Time deadline = MonotonicNow() + grace;
  server->BeginDrain();
  while (MonotonicNow() < deadline) {
    if (server->WaitUntilIdle(
            std::min(deadline, MonotonicNow() + absl::Milliseconds(20)))) {
      return;
    }
    if (sigtimedwait(&signals, nullptr, &kNoWait) > 0) return;
  }
}

absl::StatusOr<std::unique_ptr<Server>> MakeServer(
    const ServerOptions& options, Log* log, std::unique_ptr<Backend> backend,
    std::unique_ptr<Device> device) {
  absl::StatusOr<std::unique_ptr<Server>> server = nullptr;
  QK_RETURN_IF_ERROR(Guarded("start", [&]() -> absl::Status {
    QK_RETURN_IF_ERROR(CheckAccessFiles(options));
    QK_RETURN_IF_ERROR(CheckListen(options));
    QK_RETURN_IF_ERROR(CheckMetricsListen(options));
    server =
        Server::Create(options, log, std::move(device), std::move(backend));
    return server.status();
  }));
  return server;
}

absl::StatusOr<std::unique_ptr<Log>> OpenLog(const ServerOptions& options) {
  auto log = Log::Create(options.log_level, options.log_file);
  if (!log.ok()) {
    return absl::Status(log.status().code(),
                        absl::StrCat("log_file: ", log.status().message()));
  }
  (*log)->KeepLastWords();
  (*log)->TakeLibraryLogs();
  return log;
}

int Serve(const ServerOptions& options, std::unique_ptr<Backend> backend,
          std::unique_ptr<Device> device) {
  const sigset_t signals = BlockSignals();
  const auto opened = OpenLog(options);
  if (!opened.ok()) return Fail(opened.status());
  Log& log = **opened;
  const auto fail = [&](const absl::Status& status) {
    log.Error("cannot_start", {{"reason", std::string(status.message())}});
    log.Flush();
    return options.log_file.empty() ? ExitStatusOf(status) : Fail(status);
  };
  auto server =
      MakeServer(options, &log, std::move(backend), std::move(device));
  if (!server.ok()) return fail(server.status());
  log.Info("listening", {{"listen", (*server)->address()},
                         {"metrics", (*server)->metrics_address()},
                         {"version", options.version}});
  std::atomic<bool> lost = false;
  (*server)->SetOnDeviceLost([&](const absl::Status& reason) {
    log.Error("device_lost", {{"reason", std::string(reason.message())}});
    lost = true;
    kill(getpid(), SIGUSR1);
  });
  const Systemd systemd = Systemd::FromEnvironment();
  const Watchdog watchdog(
      systemd,
      [s = server->get()](absl::Duration timeout) {
        return s->CheckSelf(timeout);
      },
      &log);
  std::atomic<bool> loading = true;
  absl::Status loaded;
  std::thread loader([&] {
    loaded = Guarded("load", [&] { return (*server)->LoadModels(); });
    loading = false;
    if (loaded.ok()) {
      systemd.Notify("READY=1");
    } else {
      kill(getpid(), SIGUSR1);
    }
  });
  int signal_number = 0;
  for (;;) {
    sigwait(&signals, &signal_number);
    if (signal_number != SIGHUP) break;
    log.Reopen();
    (*server)->ReloadAccess();
  }
  systemd.Notify("STOPPING=1");
  if (signal_number != SIGUSR1) {
    log.Info("draining", {});
    Drain(server->get(), options.shutdown_grace);
  }
  (*server)->Stop();
  // A load cannot be interrupted.
  if (!loading) loader.join();
  int status = 0;
  if (lost) {
    status = kExitDevice;  // even if a load failed because of it
  } else if (!loading && !loaded.ok()) {
    status = fail(loaded);
  } else {
    log.Info("stopped", {});
  }
  // Destructors are skipped, because they would take time.
  log.Flush();
  std::_Exit(status);
}

int StartOrTell(const std::vector<std::string>& arguments,
                std::unique_ptr<Backend> backend,
                std::unique_ptr<Device> device) {
  const auto flags = ParseFlags(arguments);
  if (!flags.ok()) return Fail(flags.status());
  if (flags->help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (flags->version) {
    std::puts("qkscoped " QK_VERSION);
    return 0;
  }
  std::vector<absl::Status> found;
  const auto read = ReadOptions(*flags, &found);
  if (!read.ok()) return found.empty() ? Fail(read.status()) : FailAll(found);
  return flags->check_config
             ? CheckConfig(*read)
             : Serve(read->options, std::move(backend), std::move(device));
}

}  // namespace

int RunProcess(const std::vector<std::string>& arguments,
               std::unique_ptr<Backend> backend,
               std::unique_ptr<Device> device) {
  // Debian's build of gRPC checks for lock cycles at every lock, and aborts.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::set_terminate(OnTerminate);
  OpenStandardStreams();
  int exit_status = 0;
  const absl::Status thrown = Guarded("qkscoped", [&] {
    exit_status = StartOrTell(arguments, std::move(backend), std::move(device));
  });
  return thrown.ok() ? exit_status : Fail(thrown);
}

}  // namespace qk
