// Messages as the bytes that gRPC carries: of methods that are served raw,
// whose events are on the disk like this, or are many and large.
#ifndef QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
#define QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/common/bytes.h"

namespace qk {

// INVALID_ARGUMENT when `bytes` are no such message, which is then empty.
absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message);

// The buffer takes the bytes over.
grpc::ByteBuffer RawOf(Bytes bytes);
grpc::ByteBuffer RawOf(const google::protobuf::Message& message);

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_RAW_MESSAGE_H_
