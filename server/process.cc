#include "server/process.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "engine/create_backend.h"
#include "server/common/file_watch.h"
#include "server/common/log.h"
#include "server/config/flags.h"
#include "server/config/options.h"
#include "server/net/addresses.h"
#include "server/net/systemd.h"
#include "server/server.h"

namespace qk {
namespace {

// EX_CONFIG of sysexits.h; the systemd unit lists it in
// RestartPreventExitStatus.
constexpr int kExitConfig = 78;
// EX_SOFTWARE: the device is lost. A new process may find it again.
constexpr int kExitDevice = 70;

absl::StatusOr<ServerOptions> CheckedOptions(
    const ::qkscope::v1::ServerConfig& config, const std::string& source) {
  QK_ASSIGN_OR_RETURN(ServerOptions options, OptionsFromConfig(config, source));
  absl::Status backend = CheckBackendName(options.backend);
  if (backend.ok()) backend = CheckMatMulName(options.matmul);
  if (backend.ok()) return options;
  return absl::Status(backend.code(),
                      absl::StrCat(source, ": ", backend.message()));
}

// Reads the configuration file and lets flags override it. The file is first
// checked alone, so that an error names where the value came from.
absl::StatusOr<ServerOptions> ReadOptions(const Flags& flags) {
  ::qkscope::v1::ServerConfig config;
  if (flags.config_file.has_value()) {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        ReadTextFile(*flags.config_file));
    QK_ASSIGN_OR_RETURN(config, ParseConfig(text, *flags.config_file));
    QK_RETURN_IF_ERROR(CheckedOptions(config, *flags.config_file).status());
  }
  const bool file_has_users = !config.users().empty();
  config.MergeFrom(flags.config);
  QK_ASSIGN_OR_RETURN(ServerOptions options, CheckedOptions(config, "flags"));
  options.version = QK_VERSION;
  if (file_has_users) options.access.config_file = *flags.config_file;
  QK_RETURN_IF_ERROR(CheckAccess(options));
  return options;
}

absl::Status CheckAddresses(const ServerOptions& options) {
  const absl::Status listen = ProbeAddress(options.listen);
  if (!listen.ok()) {
    return absl::Status(listen.code(),
                        absl::StrCat("listen: ", listen.message()));
  }
  if (options.metrics_listen.empty()) return absl::OkStatus();
  const absl::Status metrics = ProbeAddress(options.metrics_listen);
  if (metrics.ok()) return metrics;
  return absl::Status(metrics.code(),
                      absl::StrCat("metrics_listen: ", metrics.message()));
}

int CheckConfig(const ServerOptions& options) {
  std::vector<std::string> problems =
      CheckModelFiles(options.models, options.model_admin);
  const absl::Status access = CheckAccessFiles(options);
  if (!access.ok()) problems.emplace_back(access.message());
  for (const std::string& problem : problems) {
    std::fprintf(stderr, "qkscoped: %s\n", problem.c_str());
  }
  if (!problems.empty()) return kExitConfig;
  std::printf("configuration is valid: %zu model%s\n", options.models.size(),
              options.models.size() == 1 ? "" : "s");
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
  const absl::Time deadline = absl::Now() + grace;
  server->BeginDrain();
  while (absl::Now() < deadline) {
    if (server->WaitUntilIdle(
            std::min(deadline, absl::Now() + absl::Milliseconds(20)))) {
      return;
    }
    if (sigtimedwait(&signals, nullptr, &kNoWait) > 0) return;
  }
}

int Serve(const ServerOptions& options, std::unique_ptr<Backend> backend,
          std::unique_ptr<Device> device) {
  const sigset_t signals = BlockSignals();
  Log log(options.log_level);
  RouteLibraryLogs();
  const auto fail = [&](const absl::Status& status) {
    log.Error("cannot_start", {{"reason", std::string(status.message())}});
    return kExitConfig;
  };
  const absl::Status access = CheckAccessFiles(options);
  if (!access.ok()) return fail(access);
  const absl::Status addresses = CheckAddresses(options);
  if (!addresses.ok()) return fail(addresses);
  auto server =
      Server::Create(options, &log, std::move(device), std::move(backend));
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
    loaded = (*server)->LoadModels();
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
  std::fflush(nullptr);
  std::_Exit(status);
}

}  // namespace

int RunProcess(const std::vector<std::string>& arguments,
               std::unique_ptr<Backend> backend,
               std::unique_ptr<Device> device) {
  // Debian's build of gRPC checks for lock cycles at every lock, and aborts.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const auto flags = ParseFlags(arguments);
  const auto fail = [](const absl::Status& status) {
    std::fprintf(stderr, "qkscoped: %s\n",
                 std::string(status.message()).c_str());
    return kExitConfig;
  };
  if (!flags.ok()) return fail(flags.status());
  if (flags->help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (flags->version) {
    std::puts("qkscoped " QK_VERSION);
    return 0;
  }
  const auto options = ReadOptions(*flags);
  if (!options.ok()) return fail(options.status());
  return flags->check_config
             ? CheckConfig(*options)
             : Serve(*options, std::move(backend), std::move(device));
}

}  // namespace qk
