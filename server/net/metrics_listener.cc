#include "server/net/metrics_listener.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/common/text.h"

namespace qk {
namespace {

constexpr absl::Duration kSweepInterval = absl::Milliseconds(250);
// A browser may run nothing and fetch nothing that an answer names but a style
// sheet of this listener, and shows no page in another site's frame.
constexpr char kContentSecurityPolicy[] =
    "default-src 'none'; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

absl::Duration Now() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

MHD_Result CollectAuthorization(void* values, MHD_ValueKind, const char* key,
                                const char* value) {
  if (absl::EqualsIgnoreCase(key, MHD_HTTP_HEADER_AUTHORIZATION)) {
    static_cast<std::vector<std::string>*>(values)->emplace_back(
        value == nullptr ? "" : value);
  }
  return MHD_YES;
}

MHD_Result Send(MHD_Connection* connection,
                const MetricsListener::Answer& answer) {
  MHD_Response* response = MHD_create_response_from_buffer(
      answer.body.size(), const_cast<char*>(answer.body.data()),
      MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  const auto header = [response](const char* name, const char* value) {
    MHD_add_response_header(response, name, value);
  };
  header(MHD_HTTP_HEADER_CONTENT_TYPE, answer.content_type.c_str());
  header(MHD_HTTP_HEADER_CONNECTION, "close");
  header(MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  header("Content-Security-Policy", kContentSecurityPolicy);
  header("X-Content-Type-Options", "nosniff");
  header("Referrer-Policy", "no-referrer");
  if (answer.code == MHD_HTTP_UNAUTHORIZED) {
    header(MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
  }
  const MHD_Result queued = MHD_queue_response(
      connection, static_cast<unsigned int>(answer.code), response);
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

struct MetricsListener::Callbacks {
  using Connection = std::list<Open>::iterator;

  // A request's head is there. Answers at once, whatever body may follow.
  static MHD_Result OnRequest(void* listener, MHD_Connection* connection,
                              const char* url, const char* method, const char*,
                              const char*, size_t*, void**) {
    if (std::strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        std::strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
      return Send(connection, {MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n"});
    }
    MetricsListener::Request request;
    request.path = url;
    MHD_get_connection_values(connection, MHD_HEADER_KIND,
                              &CollectAuthorization, &request.authorization);
    return Send(connection,
                static_cast<MetricsListener*>(listener)->handler_(request));
  }

  // A connection begins, or its descriptor is about to be closed.
  static void Notify(void* listener, MHD_Connection* connection, void** context,
                     MHD_ConnectionNotificationCode what) {
    auto* const self = static_cast<MetricsListener*>(listener);
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
      const MHD_ConnectionInfo* info = MHD_get_connection_info(
          connection, MHD_CONNECTION_INFO_CONNECTION_FD);
      *context = new Connection(self->Opened(info->connect_fd));
    } else if (*context != nullptr) {
      const std::unique_ptr<Connection> closed(
          static_cast<Connection*>(*context));
      *context = nullptr;
      self->Closed(*closed);
    }
  }
};

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Listen(
    const Options& options, Handler handler) {
  QK_ASSIGN_OR_RETURN(const AddressList found,
                      ResolveListening(options.address));
  std::unique_ptr<MetricsListener> listener(
      new MetricsListener(options, std::move(handler)));
  absl::Status status = absl::UnavailableError("no address");
  // A name may resolve to addresses that this machine does not have.
  for (const addrinfo* one = found.get(); one != nullptr && !status.ok();
       one = one->ai_next) {
    status = listener->Bind(*one);
  }
  if (status.ok()) status = listener->Start();
  if (status.ok()) return listener;
  return absl::UnavailableError(absl::StrCat(
      "cannot bind '", Echo(options.address), "': ", status.message()));
}

absl::Status MetricsListener::Bind(const addrinfo& address) {
  const int fd =
      socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::UnavailableError(std::strerror(errno));
  const int on = 1;
  const int off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.ai_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  sockaddr_in6 bound = {};  // large enough for IPv4, whose port lies the same
  socklen_t size = sizeof(bound);
  if (bind(fd, address.ai_addr, address.ai_addrlen) != 0 ||
      listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    const absl::Status failed = absl::UnavailableError(std::strerror(errno));
    close(fd);
    return failed;
  }
  socket_ = fd;
  port_ = ntohs(bound.sin6_port);
  return absl::OkStatus();
}

absl::Status MetricsListener::Start() {
  // Room for connections that were told to end and are not closed yet.
  const auto limit = static_cast<unsigned int>(2 * options_.max_connections);
  const auto seconds = static_cast<unsigned int>(
      std::max<int64_t>(1, absl::ToInt64Seconds(options_.time_limit)));
  daemon_ = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD, 0, nullptr, nullptr, &Callbacks::OnRequest,
      this, MHD_OPTION_LISTEN_SOCKET, socket_, MHD_OPTION_NOTIFY_CONNECTION,
      &Callbacks::Notify, this, MHD_OPTION_CONNECTION_LIMIT, limit,
      MHD_OPTION_CONNECTION_TIMEOUT, seconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, options_.max_head_bytes,
      MHD_OPTION_END);
  if (daemon_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("the HTTP server cannot start: ", std::strerror(errno)));
  }
  socket_ = -1;
  sweeper_ = std::thread([this] { Sweep(); });
  return absl::OkStatus();
}

MetricsListener::~MetricsListener() {
  if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
  if (socket_ >= 0) close(socket_);
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (sweeper_.joinable()) sweeper_.join();
}

std::list<MetricsListener::Open>::iterator MetricsListener::Opened(int fd) {
  MutexLock lock(&mutex_);
  if (open_.size() >= options_.max_connections) {
    // Those at the front that have been told to end are not closed yet.
    auto oldest = open_.begin();
    std::advance(oldest, open_.size() - options_.max_connections);
    shutdown(oldest->fd, SHUT_RDWR);
  }
  open_.push_back({fd, Now() + options_.time_limit});
  return std::prev(open_.end());
}

void MetricsListener::Closed(std::list<Open>::iterator connection) {
  MutexLock lock(&mutex_);
  open_.erase(connection);
}

void MetricsListener::Sweep() {
  MutexLock lock(&mutex_);
  while (!changed_.WaitFor(
      &mutex_, kSweepInterval,
      [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; })) {
    const absl::Duration now = Now();
    for (const Open& open : open_) {
      if (open.ends_at > now) break;
      // A descriptor in the list is not closed before this lock is free.
      shutdown(open.fd, SHUT_RDWR);
    }
  }
}

}  // namespace qk
