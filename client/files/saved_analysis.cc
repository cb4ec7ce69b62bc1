#include "client/files/saved_analysis.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/files/file_io.h"
#include "engine/base/json_string.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using google::protobuf::ListValue;
using google::protobuf::Message;
using google::protobuf::Struct;
using google::protobuf::Value;

// A file begins with the header's length, little-endian, in this many bytes.
constexpr size_t kLengthBytes = 8;

std::string ProtoJson(const Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = pretty;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}";
}

bool ParseProtoJson(const std::string& json, Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  return google::protobuf::util::JsonStringToMessage(json, message, options)
      .ok();
}

std::string DtypeName(v1::RawDtype dtype) {
  if (dtype == v1::F16) return "F16";
  return dtype == v1::BF16 ? "BF16" : "F32";
}

template <typename... Parts>
absl::Status Bad(const std::string& path, const Parts&... parts) {
  return absl::DataLossError(absl::StrCat(path, ": ", parts...));
}

// ------------------------------------------------------------------- writing

std::string Axes(const v1::Layer& header) {
  return absl::StrCat("[\"", absl::StrJoin(TensorAxes(header), "\",\""), "\"]");
}

std::string Metadata(const AnalysisResult& result) {
  std::vector<std::string> axes, layers, comparisons;
  for (const Tensor& tensor : result.tensors) {
    const std::string name = JsonString(TensorName(tensor.header));
    axes.push_back(absl::StrCat(name, ":", Axes(tensor.header)));
    layers.push_back(absl::StrCat(name, ":", ProtoJson(tensor.header, false)));
  }
  for (const v1::Comparison& comparison : result.comparisons) {
    comparisons.push_back(ProtoJson(comparison, false));
  }
  auto entry = [](const char* key, const std::string& json) {
    return absl::StrCat(",\"", key, "\":", JsonString(json));
  };
  return absl::StrCat(
      "{\"format\":\"qkscope\"",
      entry("manifest", ProtoJson(result.finished.manifest(), false)),
      entry("axes", absl::StrCat("{", absl::StrJoin(axes, ","), "}")),
      entry("layers", absl::StrCat("{", absl::StrJoin(layers, ","), "}")),
      entry("comparisons",
            absl::StrCat("[", absl::StrJoin(comparisons, ","), "]")),
      "}");
}

std::string Header(const AnalysisResult& result) {
  std::string header = absl::StrCat("{\"__metadata__\":", Metadata(result));
  uint64_t offset = 0;
  for (const Tensor& tensor : result.tensors) {
    const uint64_t end = offset + tensor.data.size();
    absl::StrAppend(&header, ",", JsonString(TensorName(tensor.header)),
                    ":{\"dtype\":\"", DtypeName(tensor.header.dtype()),
                    "\",\"shape\":[", absl::StrJoin(tensor.header.shape(), ","),
                    "],\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  header += "}";
  header.append((kLengthBytes - header.size() % kLengthBytes) % kLengthBytes,
                ' ');
  return header;
}

// ------------------------------------------------------------------- reading

absl::Status ReadTensor(const std::string& path, const std::string& name,
                        const Value& entry, const Value& layer,
                        const std::string& data, SavedAnalysis* saved) {
  const auto& fields = entry.struct_value().fields();
  const auto offsets = fields.find("data_offsets");
  if (offsets == fields.end() ||
      offsets->second.list_value().values_size() != 2) {
    return Bad(path, name, " has no data_offsets");
  }
  const double begin = offsets->second.list_value().values(0).number_value();
  const double end = offsets->second.list_value().values(1).number_value();
  if (!(begin >= 0 && begin <= end &&
        end <= static_cast<double>(data.size()))) {
    return Bad(path, name, " lies outside the file");
  }
  Tensor tensor;
  if (!ParseProtoJson(ProtoJson(layer, false), &tensor.header)) {
    return Bad(path, "metadata of ", name, " cannot be read");
  }
  tensor.data =
      data.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  if (ShapeBytes(tensor.header) != static_cast<int64_t>(tensor.data.size())) {
    return Bad(path, "the shape of ", name, " does not match its ",
               tensor.data.size(), " bytes");
  }
  saved->tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status ReadComparisons(const std::string& path, const std::string& json,
                             SavedAnalysis* saved) {
  ListValue list;
  if (!json.empty() && !ParseProtoJson(json, &list)) {
    return Bad(path, "its comparisons cannot be read");
  }
  for (const Value& value : list.values()) {
    v1::Comparison comparison;
    if (!ParseProtoJson(ProtoJson(value, false), &comparison)) {
      return Bad(path, "a comparison cannot be read");
    }
    saved->comparisons.push_back(std::move(comparison));
  }
  return absl::OkStatus();
}

absl::StatusOr<SavedAnalysis> ReadSafetensors(const std::string& path,
                                              const std::string& content) {
  uint64_t length;
  std::memcpy(&length, content.data(), kLengthBytes);
  if (length > content.size() - kLengthBytes) {
    return Bad(path, "its header of ", length, " bytes is truncated");
  }
  Struct header;
  if (!ParseProtoJson(content.substr(kLengthBytes, length), &header)) {
    return Bad(path, "its header is not JSON");
  }
  auto& entries = *header.mutable_fields();
  const Struct metadata = entries["__metadata__"].struct_value();
  entries.erase("__metadata__");
  auto text = [&](const char* key) {
    const auto found = metadata.fields().find(key);
    return found == metadata.fields().end() ? std::string()
                                            : found->second.string_value();
  };
  SavedAnalysis saved;
  Struct layers;
  if (!ParseProtoJson(text("manifest"), &saved.manifest) ||
      !ParseProtoJson(text("layers"), &layers)) {
    return Bad(path, "its metadata have no qkscope manifest");
  }
  const std::string data = content.substr(kLengthBytes + length);
  for (const auto& [name, entry] : entries) {
    const auto layer = layers.fields().find(name);
    if (layer == layers.fields().end()) {
      return Bad(path, "its metadata do not describe ", name);
    }
    absl::Status status =
        ReadTensor(path, name, entry, layer->second, data, &saved);
    if (!status.ok()) return status;
  }
  absl::Status status = ReadComparisons(path, text("comparisons"), &saved);
  if (!status.ok()) return status;
  return saved;
}

}  // namespace

absl::Status WriteSafetensors(const AnalysisResult& result,
                              const std::string& path) {
  const std::string header = Header(result);
  std::string length(kLengthBytes, '\0');
  const uint64_t bytes = header.size();
  std::memcpy(length.data(), &bytes, kLengthBytes);
  std::vector<const std::string*> parts = {&length, &header};
  for (const Tensor& tensor : result.tensors) parts.push_back(&tensor.data);
  return WriteFileAtomically(path, parts);
}

absl::Status WriteManifest(const v1::Manifest& manifest,
                           const std::string& path) {
  const std::string json = ProtoJson(manifest, true);
  return WriteFileAtomically(path, {&json});
}

absl::StatusOr<SavedAnalysis> ReadSavedAnalysis(const std::string& path) {
  absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return content.status();
  // In a .safetensors file, '{' follows the header's length; JSON begins with
  // it.
  const bool is_safetensors = content->size() > kLengthBytes &&
                              (*content)[kLengthBytes] == '{' &&
                              (*content)[kLengthBytes - 1] == '\0';
  if (is_safetensors) return ReadSafetensors(path, *content);
  SavedAnalysis saved;
  if (!ParseProtoJson(*content, &saved.manifest) ||
      saved.manifest.model().empty()) {
    return Bad(path, "neither a manifest nor a .safetensors file from qkscope");
  }
  return saved;
}

}  // namespace qk::client
