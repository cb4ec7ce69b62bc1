// What gRPC allows of a connection before any call is authenticated.
#ifndef QKSCOPE_SERVER_NET_HTTP2_LIMITS_H_
#define QKSCOPE_SERVER_NET_HTTP2_LIMITS_H_

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"

namespace qk {

// A connection that has been silent for `keepalive` is pinged, and closed if
// the ping has had no answer for `keepalive_timeout`. One whose handshakes
// (TLS, and HTTP/2's first frames) are not done after the sum of both is
// closed, too.
void SetHttp2Limits(absl::Duration keepalive, absl::Duration keepalive_timeout,
                    grpc::ServerBuilder* builder);

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_HTTP2_LIMITS_H_
