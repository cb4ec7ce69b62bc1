// Mends of Debian's gRPC 1.51, in which a connection without credentials could
// fill the memory. They replace functions and one table of libgrpc.so by their
// symbols: a definition in the program itself comes before the library's. With
// any other version of gRPC they are not compiled.
#ifndef QKSCOPE_SERVER_NET_HTTP2_GUARD_H_
#define QKSCOPE_SERVER_NET_HTTP2_GUARD_H_

#include <cstdint>

namespace qk {

// The calls that a connection may have open, and the size of a call's headers.
// gRPC holds a client to them from its first byte, whether or not the client
// ever acknowledges the server's settings. The limit on headers is twice gRPC's
// default, so that a token that is too long gets the server's own error.
// OpenCalls has further limits.
inline constexpr int kMaxStreamsPerConnection = 1024;
inline constexpr int kMaxMetadataBytes = 16 * 1024;

// Whether gRPC's symbols are replaced. False with another version of gRPC, or
// if the program does not export its own.
bool Http2GuardWorks();

// The connections that were cut since the process began. Thread-safe.
int64_t Http2ConnectionsCut();

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_HTTP2_GUARD_H_
