// What systemd wants to hear, without its library: sd_notify(3).
#ifndef QKSCOPE_SERVER_NET_SYSTEMD_H_
#define QKSCOPE_SERVER_NET_SYSTEMD_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
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

// Sends WATCHDOG=1 if `check` finds all well, kChecks times in systemd's
// period. A check may take as long as the time from one to the next, so three
// fit into the period that begins with a good one: an answer that is late once,
// on a busy machine, does not end the process.
class Watchdog {
 public:
  using Check = std::function<absl::Status(absl::Duration timeout)>;
  static constexpr int kChecks = 4;

  // `log` and what `check` uses outlive it.
  Watchdog(const Systemd& systemd, Check check, Log* log);
  ~Watchdog();

 private:
  void Loop();

  const Systemd systemd_;
  const Check check_;
  Log* const log_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_SYSTEMD_H_
