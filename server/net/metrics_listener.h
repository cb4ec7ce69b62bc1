// The HTTP listener of the metrics and the status page, which only reads. One
// thread serves all its connections as they become ready, so one that is silent
// or slow keeps nobody waiting.
#ifndef QKSCOPE_SERVER_NET_METRICS_LISTENER_H_
#define QKSCOPE_SERVER_NET_METRICS_LISTENER_H_

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/net/addresses.h"

struct MHD_Connection;
struct MHD_Daemon;

namespace qk {

class MetricsListener {
 public:
  struct Options {
    std::string address;  // "HOST:PORT"
    // From a connection's beginning to its end, whatever it sends and reads.
    absl::Duration time_limit = absl::Seconds(10);
    // When there are more connections, the oldest ends.
    size_t max_connections = 128;
    // Of a request's line and headers; bytes.
    size_t max_head_bytes = 16 * 1024;
  };
  struct Request {
    std::string path;                        // without a query, as it was sent
    std::vector<std::string> authorization;  // values of all such headers
  };
  struct Answer {
    int code = 200;  // of HTTP
    std::string body;
    std::string content_type = "text/plain; charset=utf-8";
  };
  // Answers GET and HEAD. Called on the listener's thread.
  using Handler = std::function<Answer(const Request& request)>;

  // UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Listen(
      const Options& options, Handler handler);
  // Ends all connections.
  ~MetricsListener();

  int port() const { return port_; }

 private:
  struct Callbacks;  // libmicrohttpd's view of this object
  struct Open {
    int fd = -1;
    absl::Duration ends_at;  // on the monotonic clock
  };

  MetricsListener(const Options& options, Handler handler)
      : options_(options), handler_(std::move(handler)) {}

  absl::Status Bind(const addrinfo& address);
  absl::Status Start();
  std::list<Open>::iterator Opened(int fd) ABSL_LOCKS_EXCLUDED(mutex_);
  void Closed(std::list<Open>::iterator connection) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends connections whose time is over.
  void Sweep();

  const Options options_;
  const Handler handler_;
  int port_ = 0;
  int socket_ = -1;  // until the daemon has it
  MHD_Daemon* daemon_ = nullptr;

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<Open> open_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::thread sweeper_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_METRICS_LISTENER_H_
