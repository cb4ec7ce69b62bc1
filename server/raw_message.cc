#include "server/raw_message.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/proto_buffer_reader.h"

namespace qk {

absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message) {
  grpc::ByteBuffer copy = bytes;  // of references
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) {
    return absl::OkStatus();
  }
  message->Clear();
  return absl::InvalidArgumentError(absl::StrCat(
      "the message is not a ", message->GetDescriptor()->full_name()));
}

grpc::ByteBuffer RawOf(std::string bytes) {
  auto* const owner = new std::string(std::move(bytes));
  const grpc::Slice slice(
      owner->data(), owner->size(),
      [](void* string) { delete static_cast<std::string*>(string); }, owner);
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer RawOf(Bytes bytes) {
  const size_t size = bytes.size();
  const grpc::Slice slice(bytes.Release(), size, [](void* data) {
    delete[] static_cast<char*>(data);
  });
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer RawOf(const google::protobuf::Message& message) {
  return RawOf(message.SerializeAsString());
}

}  // namespace qk
