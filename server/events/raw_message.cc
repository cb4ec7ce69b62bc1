#include "server/events/raw_message.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
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

namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Counts the messages inside a message of `type`. Returns false if there are
// more than *left, or if the bytes are no message.
bool CountParts(CodedInputStream* in, const Descriptor& type, int depth,
                int* left) {
  constexpr int kMaxDepth = 100;  // protobuf's own limit
  if (depth > kMaxDepth) return false;
  while (const uint32_t tag = in->ReadTag()) {
    if (WireFormatLite::GetTagWireType(tag) !=
        WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(in, tag)) return false;
      continue;
    }
    const FieldDescriptor* field =
        type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    uint32_t size = 0;
    if (!in->ReadVarint32(&size)) return false;
    if (field != nullptr && field->type() == FieldDescriptor::TYPE_MESSAGE) {
      if (--*left < 0) return false;
      const CodedInputStream::Limit limit =
          in->PushLimit(static_cast<int>(size));
      if (!CountParts(in, *field->message_type(), depth + 1, left))
        return false;
      in->PopLimit(limit);
    } else if (!in->Skip(static_cast<int>(size))) {
      return false;
    }
  }
  return true;
}

}  // namespace

absl::Status ParseRaw(const grpc::ByteBuffer& bytes,
                      google::protobuf::Message* message) {
  int parts_left = kMaxParts;
  {
    grpc::ByteBuffer copy = bytes;  // copies references only
    grpc::ProtoBufferReader reader(&copy);
    if (reader.status().ok()) {
      CodedInputStream in(&reader);
      CountParts(&in, *message->GetDescriptor(), 0, &parts_left);
    }
  }
  if (parts_left < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the message has more than ", kMaxParts, " messages inside"));
  }
  grpc::ByteBuffer copy = bytes;
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
