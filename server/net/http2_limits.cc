#include "server/net/http2_limits.h"

#include "server/net/http2_guard.h"

namespace qk {
namespace {

// The server closes connections whose clients ping more often than this.
constexpr int kMinPingIntervalMs = 10'000;

}  // namespace

void SetHttp2Limits(absl::Duration keepalive, absl::Duration keepalive_timeout,
                    grpc::ServerBuilder* builder) {
  const auto set_time = [builder](const char* key, absl::Duration time) {
    builder->AddChannelArgument(
        key, static_cast<int>(absl::ToInt64Milliseconds(time)));
  };
  set_time(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive);
  set_time(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_timeout);
  set_time(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, keepalive + keepalive_timeout);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              kMaxStreamsPerConnection);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // gRPC unpacks a message before it looks at the limit on its size, so 1 MB
  // could become 1 GB.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
}

}  // namespace qk
