// Notifies systemd as sd_notify(3) does, without libsystemd.
#ifndef QKSCOPE_SERVER_NET_SYSTEMD_H_
#define QKSCOPE_SERVER_NET_SYSTEMD_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/common/log.h"

namespace qk {

class Systemd {
 public:
  // Reads NOTIFY_SOCKET (a path, or "@" and an abstract name), WATCHDOG_USEC
  // and WATCHDOG_PID. Without a socket, Notify does nothing.
  static Systemd FromEnvironment();

  // Sends a state such as "READY=1". Failures are ignored.
  void Notify(const std::string& state) const;
  // The interval in which systemd expects a WATCHDOG=1. ZeroDuration: none.
  absl::Duration watchdog() const { return watchdog_; }

 private:
  std::string socket_;
  absl::Duration watchdog_ = absl::ZeroDuration();
};

// Sends WATCHDOG=1 when `check` is OK, kChecks times per watchdog interval of
// systemd. A check may take until the next one is due, so three checks fit
// between two signals: one late answer on a busy machine does not end the
// process.
class Watchdog {
 public:
  using Check = std::function<absl::Status(absl::Duration timeout)>;
  static constexpr int kChecks = 4;

  // `log` and what `check` uses must outlive the watchdog.
  Watchdog(const Systemd& systemd, Check check, Log* log);
  ~Watchdog();

 private:
  void Loop();
  // False: not within `timeout`.
  bool WaitForStop(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);

  const Systemd systemd_;
  const Check check_;
  Log* const log_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_SYSTEMD_H_
