#include "server/net/http2_guard.h"

#include <dlfcn.h>

#include <atomic>
#include <chrono>

#include "absl/status/status.h"
#include "grpc/slice.h"
#include "grpcpp/version_info.h"
#include "server/net/open_calls.h"

// The names of gRPC's own types.
struct grpc_chttp2_transport;
struct grpc_chttp2_stream;

namespace qk {
namespace {

std::atomic<int64_t> connections_cut = 0;

// gRPC's functions have no object of ours that could hold this. It is never
// destroyed, because gRPC's threads outlive main.
OpenCalls& Calls() {
  static OpenCalls& calls = *new OpenCalls({});
  return calls;
}

absl::Status Cut() {
  ++connections_cut;
  return absl::ResourceExhaustedError(
      "the connection's calls cost too much before they are served");
}

// The function that libgrpc.so has under the name.
template <typename Function>
Function* Original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

int64_t Http2ConnectionsCut() { return connections_cut; }

}  // namespace qk

#if GRPC_CPP_VERSION_MAJOR == 1 && GRPC_CPP_VERSION_MINOR == 51

// gRPC holds a client to the server's limits once the client has acknowledged
// them. Before that, and forever if it never does, the values of this table
// hold: in gRPC's own, 16 MiB of headers a call, and any number of calls. Those
// headers may be a few bytes each on the wire (CVE-2023-33953).
//
// The values also hold for what may be sent to a client that states none.
struct grpc_chttp2_setting_parameters {
  const char* name;
  uint32_t default_value;
  uint32_t min_value;
  uint32_t max_value;
  int invalid_value_behavior;  // 0: the value is clamped; 1: disconnects
  uint32_t error_value;
};
extern const grpc_chttp2_setting_parameters grpc_chttp2_settings_parameters[7];
const grpc_chttp2_setting_parameters grpc_chttp2_settings_parameters[7] = {
    {"HEADER_TABLE_SIZE", 4096, 0, 0xffffffff, 0, 1},
    {"ENABLE_PUSH", 1, 0, 1, 1, 1},
    {"MAX_CONCURRENT_STREAMS", qk::kMaxStreamsPerConnection, 0, 0xffffffff, 1,
     1},
    {"INITIAL_WINDOW_SIZE", 65535, 0, 0x7fffffff, 1, 3},
    {"MAX_FRAME_SIZE", 16384, 16384, 16777215, 1, 1},
    {"MAX_HEADER_LIST_SIZE", qk::kMaxMetadataBytes, 0, 16777216, 0, 1},
    {"GRPC_ALLOW_TRUE_BINARY_METADATA", 0, 0, 1, 0, 1},
};

// A call's constructor and destructor. `server_data` is null in a client's.
#define QK_CONSTRUCTOR                                                \
  "_ZN18grpc_chttp2_streamC1EP21grpc_chttp2_transportP20grpc_stream_" \
  "refcountPKvPN9grpc_core5ArenaE"
#define QK_DESTRUCTOR "_ZN18grpc_chttp2_streamD1Ev"

extern "C" void QkConstructStream(grpc_chttp2_stream* stream,
                                  grpc_chttp2_transport* connection,
                                  void* refcount, const void* server_data,
                                  void* arena) asm(QK_CONSTRUCTOR);
extern "C" void QkDestroyStream(grpc_chttp2_stream* stream) asm(QK_DESTRUCTOR);

void QkConstructStream(grpc_chttp2_stream* stream,
                       grpc_chttp2_transport* connection, void* refcount,
                       const void* server_data, void* arena) {
  static auto* const original =
      qk::Original<decltype(QkConstructStream)>(QK_CONSTRUCTOR);
  if (server_data != nullptr) qk::Calls().Add(stream, connection);
  original(stream, connection, refcount, server_data, arena);
}

void QkDestroyStream(grpc_chttp2_stream* stream) {
  static auto* const original =
      qk::Original<decltype(QkDestroyStream)>(QK_DESTRUCTOR);
  original(stream);
  qk::Calls().Remove(stream);
}

// Parses a part of a call's headers. An error here ends the connection.
absl::Status grpc_chttp2_header_parser_parse(void* parser,
                                             grpc_chttp2_transport* connection,
                                             grpc_chttp2_stream* stream,
                                             const grpc_slice& bytes,
                                             int is_last);
absl::Status grpc_chttp2_header_parser_parse(void* parser,
                                             grpc_chttp2_transport* connection,
                                             grpc_chttp2_stream* stream,
                                             const grpc_slice& bytes,
                                             int is_last) {
  static auto* const original =
      qk::Original<decltype(grpc_chttp2_header_parser_parse)>(
          "_Z31grpc_chttp2_header_parser_parsePvP21grpc_chttp2_transportP18"
          "grpc_chttp2_streamRK10grpc_slicei");
  if (!qk::Calls().AddHeaders(stream, GRPC_SLICE_LENGTH(bytes))) {
    return qk::Cut();
  }
  return original(parser, connection, stream, bytes, is_last);
}

// Takes bytes of a client's cancellation (RST_STREAM).
absl::Status grpc_chttp2_rst_stream_parser_parse(
    void* parser, grpc_chttp2_transport* connection, grpc_chttp2_stream* stream,
    const grpc_slice& bytes, int is_last);
absl::Status grpc_chttp2_rst_stream_parser_parse(
    void* parser, grpc_chttp2_transport* connection, grpc_chttp2_stream* stream,
    const grpc_slice& bytes, int is_last) {
  static auto* const original =
      qk::Original<decltype(grpc_chttp2_rst_stream_parser_parse)>(
          "_Z35grpc_chttp2_rst_stream_parser_parsePvP21grpc_chttp2_transportP18"
          "grpc_chttp2_streamRK10grpc_slicei");
  if (is_last != 0 &&
      !qk::Calls().Cancel(stream, std::chrono::steady_clock::now())) {
    return qk::Cut();
  }
  return original(parser, connection, stream, bytes, is_last);
}

// Begins a part of a call's message. A call has one message here, and the last
// part of it has this flag.
constexpr uint8_t kEndStream = 1;
absl::Status grpc_chttp2_data_parser_begin_frame(uint8_t flags, uint32_t id,
                                                 grpc_chttp2_stream* stream);
absl::Status grpc_chttp2_data_parser_begin_frame(uint8_t flags, uint32_t id,
                                                 grpc_chttp2_stream* stream) {
  static auto* const original =
      qk::Original<decltype(grpc_chttp2_data_parser_begin_frame)>(
          "_Z35grpc_chttp2_data_parser_begin_framehjP18grpc_chttp2_stream");
  if ((flags & kEndStream) != 0) qk::Calls().EndMessage(stream);
  return original(flags, id, stream);
}

// Takes bytes of that part.
absl::Status grpc_chttp2_data_parser_parse(void* parser,
                                           grpc_chttp2_transport* connection,
                                           grpc_chttp2_stream* stream,
                                           const grpc_slice& bytes,
                                           int is_last);
absl::Status grpc_chttp2_data_parser_parse(void* parser,
                                           grpc_chttp2_transport* connection,
                                           grpc_chttp2_stream* stream,
                                           const grpc_slice& bytes,
                                           int is_last) {
  static auto* const original =
      qk::Original<decltype(grpc_chttp2_data_parser_parse)>(
          "_Z29grpc_chttp2_data_parser_parsePvP21grpc_chttp2_transportP18grpc_"
          "chttp2_streamRK10grpc_slicei");
  if (!qk::Calls().AddMessage(stream, GRPC_SLICE_LENGTH(bytes))) {
    return qk::Cut();
  }
  return original(parser, connection, stream, bytes, is_last);
}

namespace qk {

bool Http2GuardWorks() {
  return dlsym(RTLD_DEFAULT, QK_CONSTRUCTOR) ==
             reinterpret_cast<void*>(&QkConstructStream) &&
         dlsym(RTLD_DEFAULT, "grpc_chttp2_settings_parameters") ==
             &grpc_chttp2_settings_parameters;
}

}  // namespace qk

#else

namespace qk {

bool Http2GuardWorks() { return false; }

}  // namespace qk

#endif
