#include "server/events/raw_message.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/proto_buffer_reader.h"

namespace qk {

bool HasTrue(const grpc::ByteBuffer& bytes, std::initializer_list<int> fields) {
  using google::protobuf::internal::WireFormatLite;
  constexpr int kMostFields = 65536;
  grpc::ByteBuffer copy = bytes;  // copies references only
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok()) return false;
  google::protobuf::io::CodedInputStream in(&reader);
  std::set<int> set;
  for (int i = 0; i < kMostFields; ++i) {
    const uint32_t tag = in.ReadTag();
    if (tag == 0) break;
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    const bool wanted =
        std::find(fields.begin(), fields.end(), field) != fields.end() &&
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_VARINT;
    uint64_t value = 0;
    if (!wanted) {
      if (!WireFormatLite::SkipField(&in, tag)) return false;
    } else if (!in.ReadVarint64(&value)) {
      return false;
    } else if (value != 0) {
      set.insert(field);
    } else {
      set.erase(field);
    }
  }
  return !set.empty();
}

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
