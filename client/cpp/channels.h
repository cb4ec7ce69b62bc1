// The gRPC channels of a client: one for a target, which may be several
// addresses, or one for each server of a list in a file.
#ifndef QKSCOPE_CLIENT_CPP_CHANNELS_H_
#define QKSCOPE_CLIENT_CPP_CHANNELS_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/analysis_client.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk::client {

// One channel and its stubs. Constant.
struct ClientStubs {
  std::shared_ptr<grpc::Channel> channel;
  std::string token;
  std::unique_ptr<qkscope::v1::Analysis::Stub> analysis;
  std::unique_ptr<qkscope::v1::ModelAdmin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// Thread-safe.
class Channels {
 public:
  static std::unique_ptr<Channels> Create(const ClientOptions& options);
  virtual ~Channels() = default;

  // The channel for the next call. `replica`: the name of the replica that must
  // answer it; empty: any may. Waits, within the call's timeout, for one that
  // is connected. If none can be reached, it returns one of them, whose call
  // then says why. Fails if there is no server to choose (UNAVAILABLE), or as
  // ReadServerList does.
  virtual absl::StatusOr<std::shared_ptr<const ClientStubs>> Choose(
      absl::string_view replica, const CallOptions& options) = 0;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_CHANNELS_H_
