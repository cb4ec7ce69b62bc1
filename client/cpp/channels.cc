#include "client/cpp/channels.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/server_list.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "engine/base/mutex.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

using Stubs = std::shared_ptr<const ClientStubs>;

// A Logits event with a whole vocabulary may exceed gRPC's default of 4 MiB.
constexpr int kMaxReceiveBytes = 256 << 20;
// How soon a server that has come back is found.
constexpr int kFirstReconnectMs = 200;
constexpr int kLongestReconnectMs = 5000;
// A list is read again, at the earliest, after this time.
constexpr absl::Duration kListAge = absl::Seconds(1);
// How long a call waits for one server before it asks the next one, too.
constexpr absl::Duration kPatience = absl::Milliseconds(250);
// Calls take turns on all servers that say of themselves that they serve.
constexpr char kRoundRobin[] = R"({"loadBalancingConfig":[{"round_robin":{}}],)"
                               R"("healthCheckConfig":{"serviceName":""}})";

std::shared_ptr<grpc::ChannelCredentials> Credentials(
    const ClientOptions& options) {
  if (!options.tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls->ca;
  ssl.pem_cert_chain = options.tls->certificate;
  ssl.pem_private_key = options.tls->key;
  return grpc::SslCredentials(ssl);
}

Stubs Connect(const ClientOptions& options, const std::string& target,
              bool round_robin) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestReconnectMs);
  if (round_robin) arguments.SetServiceConfigJSON(kRoundRobin);
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  auto stubs = std::make_shared<ClientStubs>();
  stubs->channel =
      grpc::CreateCustomChannel(target, Credentials(options), arguments);
  stubs->token = options.token;
  stubs->analysis = v1::Analysis::NewStub(stubs->channel);
  stubs->admin = v1::ModelAdmin::NewStub(stubs->channel);
  stubs->health = grpc::health::v1::Health::NewStub(stubs->channel);
  return stubs;
}

class OneChannel : public Channels {
 public:
  explicit OneChannel(Stubs stubs) : stubs_(std::move(stubs)) {}

  absl::StatusOr<Stubs> Choose(absl::string_view, const CallOptions&) override {
    return stubs_;
  }

 private:
  const Stubs stubs_;
};

// Waits until the channel has connected or failed to, at most `patience`.
grpc_connectivity_state Settle(grpc::Channel* channel,
                               absl::Duration patience) {
  const auto until =
      std::chrono::system_clock::now() + absl::ToChronoMicroseconds(patience);
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (state == GRPC_CHANNEL_IDLE || state == GRPC_CHANNEL_CONNECTING) {
    if (!channel->WaitForStateChange(state, until)) break;
    state = channel->GetState(true);
  }
  return state;
}

// Waits until one of the channels is connected, and returns it; the first, if
// all have failed, or the call is over before.
Stubs FirstConnected(const std::vector<Stubs>& channels,
                     const CallOptions& options) {
  const absl::Time end = MonotonicNow() + options.timeout;
  bool waiting = true;
  while (waiting) {
    waiting = false;
    for (const Stubs& stubs : channels) {
      const absl::Duration left = end - MonotonicNow();
      if (left <= absl::ZeroDuration() || (options.cancellation != nullptr &&
                                           options.cancellation->cancelled())) {
        return channels[0];
      }
      const grpc_connectivity_state state =
          Settle(stubs->channel.get(), std::min(kPatience, left));
      if (state == GRPC_CHANNEL_READY) return stubs;
      waiting = waiting || state != GRPC_CHANNEL_TRANSIENT_FAILURE;
    }
  }
  return channels[0];
}

// gRPC 1.51 has no public way to add a resolver, and one channel for several
// addresses would check all their certificates for one name. So each server has
// a channel of its own, and calls take turns.
class ListedChannels : public Channels {
 public:
  ListedChannels(ClientOptions options, std::string path)
      : options_(std::move(options)),
        path_(std::move(path)),
        turn_(absl::Uniform<size_t>(absl::BitGen(), 0, 1 << 20)) {}

  absl::StatusOr<Stubs> Choose(absl::string_view replica,
                               const CallOptions& options) override {
    QK_ASSIGN_OR_RETURN(const std::vector<Stubs> channels, Candidates(replica));
    return FirstConnected(channels, options);
  }

 private:
  absl::StatusOr<std::vector<Stubs>> Candidates(absl::string_view replica)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    QK_RETURN_IF_ERROR(Refresh());
    std::vector<Stubs> named, unnamed, all;
    for (const auto& [server, stubs] : channels_) {
      all.push_back(stubs);
      if (server.replica.empty()) unnamed.push_back(stubs);
      if (server.replica == replica) named.push_back(stubs);
    }
    std::vector<Stubs>* chosen = &all;
    if (!replica.empty()) chosen = named.empty() ? &unnamed : &named;
    if (chosen->empty()) {
      return absl::UnavailableError(
          all.empty() ? absl::StrCat(path_, ": lists no server")
                      : absl::StrCat(path_, ": lists no replica '",
                                     std::string(replica), "'"));
    }
    std::rotate(
        chosen->begin(),
        chosen->begin() + static_cast<ptrdiff_t>(turn_++ % chosen->size()),
        chosen->end());
    return std::move(*chosen);
  }

  // Reads the list again if it may have changed. If that fails, what was read
  // before stays in use.
  absl::Status Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time now = MonotonicNow();
    if (now - read_ < kListAge) return absl::OkStatus();
    const auto servers = ReadServerList(path_);
    if (!servers.ok() && !known_) return servers.status();
    read_ = now;
    if (!servers.ok()) return absl::OkStatus();
    std::map<ListedServer, Stubs> channels;
    for (const ListedServer& server : *servers) {
      const auto known = channels_.find(server);
      channels[server] = known != channels_.end()
                             ? known->second
                             : Connect(options_, server.address, true);
    }
    channels_ = std::move(channels);
    known_ = true;
    return absl::OkStatus();
  }

  const ClientOptions options_;
  const std::string path_;
  Mutex mutex_;
  std::map<ListedServer, Stubs> channels_ ABSL_GUARDED_BY(mutex_);
  bool known_ ABSL_GUARDED_BY(mutex_) = false;  // the list was read once
  absl::Time read_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  size_t turn_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Channels> Channels::Create(const ClientOptions& options) {
  if (const auto path = ServerListPath(options.server)) {
    return std::make_unique<ListedChannels>(options, *path);
  }
  const bool several = absl::StartsWith(options.server, "ipv4:") ||
                       absl::StartsWith(options.server, "ipv6:") ||
                       absl::StartsWith(options.server, "dns:");
  return std::make_unique<OneChannel>(
      Connect(options, options.server, several));
}

}  // namespace qk::client
