// Messages as the bytes that gRPC carries: requests are parsed when it is their
// user's turn, and events are stored serialised, or are many and large.
#ifndef QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
#define QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_

#include <initializer_list>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/common/bytes.h"

namespace qk {

// Whether one of the message's boolean `fields` is set to true; the last value
// of a field counts. Looks at the first 65,536 fields only. False if the bytes
// are no message.
bool HasTrue(const grpc::ByteBuffer& bytes, std::initializer_list<int> fields);

// Parses `bytes`. On failure (INVALID_ARGUMENT) the message is empty. Each
// message inside a message takes far more memory than bytes, so there may be no
// more than kMaxParts of them.
inline constexpr int kMaxParts = 262'144;
absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message);

// The buffer takes ownership of the bytes.
grpc::ByteBuffer ToByteBuffer(Bytes bytes);
grpc::ByteBuffer ToByteBuffer(const google::protobuf::Message& message);

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
