#include "server/events/raw_message.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/proto_buffer_reader.h"

namespace qk {

absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message) {
  grpc::ByteBuffer copy = bytes;  // copies references only
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) {
    return absl::OkStatus();
  }
  message->Clear();
  return absl::InvalidArgumentError(absl::StrCat(
      "the message is not a ", message->GetDescriptor()->full_name()));
}

grpc::ByteBuffer ToByteBuffer(Bytes bytes) {
  const size_t size = bytes.size();
  const grpc::Slice slice(bytes.Release(), size, [](void* data) {
    delete[] static_cast<char*>(data);
  });
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer ToByteBuffer(const google::protobuf::Message& message) {
  Bytes bytes(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(
      reinterpret_cast<uint8_t*>(bytes.data()));
  return ToByteBuffer(std::move(bytes));
}

}  // namespace qk
