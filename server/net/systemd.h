// What systemd wants to hear, without its library: sd_notify(3).
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
  // As the environment says: NOTIFY_SOCKET (a path, or "@" and an abstract
  // name), WATCHDOG_USEC and WATCHDOG_PID. Says nothing where there is none.
  static Systemd FromEnvironment();

  // "READY=1". What cannot be sent is lost.
  void Notify(const std::string& state) const;
  // In which systemd wants to hear a WATCHDOG=1; ZeroDuration: it does not.
  absl::Duration watchdog() const { return watchdog_; }

 private:
  std::string socket_;
  absl::Duration watchdog_ = absl::ZeroDuration();
};

// Twice in systemd's time: sends WATCHDOG=1 if `check` finds all well.
class Watchdog {
 public:
  using Check = std::function<absl::Status(absl::Duration timeout)>;

  // `log` and what `check` uses outlive it.
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
