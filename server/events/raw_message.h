// Messages as the bytes that gRPC carries, for the methods that are served raw
// because their events are stored serialised, or are many and large.
#ifndef QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
#define QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/common/bytes.h"

namespace qk {

// Parses `bytes`. On failure (INVALID_ARGUMENT) the message is empty.
absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message);

// The buffer takes ownership of the bytes.
grpc::ByteBuffer ToByteBuffer(Bytes bytes);
grpc::ByteBuffer ToByteBuffer(const google::protobuf::Message& message);

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
