#include "server/net/systemd.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "server/common/guarded.h"

namespace qk {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Systemd Systemd::FromEnvironment() {
  Systemd out;
  out.socket_ = Environment("NOTIFY_SOCKET");
  int64_t microseconds = 0;
  int64_t pid = 0;
  const std::string for_pid = Environment("WATCHDOG_PID");
  const bool ours =
      for_pid.empty() || (absl::SimpleAtoi(for_pid, &pid) && pid == getpid());
  if (ours && absl::SimpleAtoi(Environment("WATCHDOG_USEC"), &microseconds) &&
      microseconds > 0) {
    out.watchdog_ = absl::Microseconds(microseconds);
  }
  return out;
}

void Systemd::Notify(const std::string& state) const {
  sockaddr_un address = {};
  if (socket_.empty() || socket_.size() >= sizeof(address.sun_path)) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  sendto(fd, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
         reinterpret_cast<const sockaddr*>(&address),
         offsetof(sockaddr_un, sun_path) + socket_.size());
  close(fd);
}

Watchdog::Watchdog(const Systemd& systemd, Check check, Log* log)
    : systemd_(systemd), check_(std::move(check)), log_(log) {
  if (systemd_.watchdog() > absl::ZeroDuration()) {
    thread_ = std::thread([this] { Loop(); });
  }
}

Watchdog::~Watchdog() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::Loop() {
  const absl::Duration interval = systemd_.watchdog() / kChecks;
  absl::Duration wait = absl::ZeroDuration();
  bool failed = false;
  while (!WaitForStop(wait)) {
    const auto begun = std::chrono::steady_clock::now();
    const absl::Status status =
        Guarded("watchdog", [&] { return check_(interval); });
    if (status.ok()) {
      systemd_.Notify("WATCHDOG=1");
    } else {
      const std::vector<LogField> fields = {
          {"reason", std::string(status.message())}};
      failed ? log_->Error("watchdog", fields)
             : log_->Warn("watchdog_late", fields);
    }
    failed = !status.ok();
    wait = std::max(
        absl::ZeroDuration(),
        interval - absl::FromChrono(std::chrono::steady_clock::now() - begun));
  }
}

bool Watchdog::WaitForStop(absl::Duration timeout) {
  MutexLock lock(&mutex_);
  return changed_.WaitFor(
      &mutex_, timeout,
      [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; });
}

}  // namespace qk
