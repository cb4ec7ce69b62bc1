// Reads the header of one safetensors file and checks every claim in it against
// the bytes of the file.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/formats/safetensors.h"

namespace qk {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;
constexpr int64_t kMaxTensors = 65536;
constexpr size_t kMaxDims = 8;

// The types of the format that a model file may hold.
struct StoredType {
  absl::string_view name;
  uint64_t bytes;
  std::optional<DType> served;
};
constexpr StoredType kTypes[] = {
    {"F32", 4, DType::kF32},   {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16}, {"BOOL", 1, std::nullopt},
    {"U8", 1, std::nullopt},   {"I8", 1, std::nullopt},
    {"U16", 2, std::nullopt},  {"I16", 2, std::nullopt},
    {"U32", 4, std::nullopt},  {"I32", 4, DType::kI32},
    {"U64", 8, std::nullopt},  {"I64", 8, std::nullopt},
};

struct Entry {
  std::string name;
  const StoredType* type;
  std::vector<int64_t> shape;
  uint64_t begin;
  uint64_t end;
};

class HeaderReader {
 public:
  HeaderReader(absl::string_view name, absl::Span<const uint8_t> file)
      : name_(name), file_(file) {}

  absl::StatusOr<SafetensorsContents> Run() {
    QK_RETURN_IF_ERROR(Locate());
    const absl::string_view header(
        reinterpret_cast<const char*>(file_.data()) + kLengthBytes,
        header_bytes_);
    if (header[0] != '{') {
      return Fail(absl::StrCat("invalid header: must start with '{', got '",
                               Excerpt(header.substr(0, 1)), "'"));
    }
    JsonLimits limits;
    limits.max_bytes = static_cast<int64_t>(kMaxHeaderBytes);
    limits.max_depth = 4;
    limits.numbers = JsonNumbers::kStrict;
    QK_ASSIGN_OR_RETURN(
        const JsonDocument document,
        JsonDocument::Parse(absl::StrCat(name_, ": invalid header"), header,
                            limits));
    QK_RETURN_IF_ERROR(ReadEntries(document.root()));
    QK_RETURN_IF_ERROR(CheckOffsets());
    return Contents();
  }

 private:
  absl::Status Fail(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": ", message));
  }

  static std::string Quoted(absl::string_view tensor) {
    return absl::StrCat("'", Excerpt(tensor), "'");
  }

  absl::Status Locate() {
    if (file_.size() < kLengthBytes) {
      return Fail(absl::StrCat("header too small: the file has ", file_.size(),
                               " bytes"));
    }
    std::memcpy(&header_bytes_, file_.data(), kLengthBytes);
    if (header_bytes_ > kMaxHeaderBytes) {
      return Fail(absl::StrCat("header too large: ", header_bytes_,
                               " bytes, limit ", kMaxHeaderBytes));
    }
    const uint64_t left = file_.size() - kLengthBytes;
    if (header_bytes_ == 0 || header_bytes_ > left) {
      return Fail(absl::StrCat("invalid header length: ", header_bytes_,
                               ", expected 1 to ", left));
    }
    data_ = file_.subspan(kLengthBytes + header_bytes_);
    return absl::OkStatus();
  }

  absl::Status ReadEntries(JsonValue root) {
    const int64_t count = root.size();
    if (count > kMaxTensors) {
      return Fail(absl::StrCat("invalid header: ", count, " tensors, limit ",
                               kMaxTensors));
    }
    entries_.reserve(static_cast<size_t>(count));
    return root.ForEachMember([&](absl::string_view key, JsonValue value) {
      return key == "__metadata__" ? CheckMetadata(value)
                                   : ReadEntry(key, value);
    });
  }

  // We do not use its content, but a wrong type means a wrong writer.
  absl::Status CheckMetadata(JsonValue value) const {
    if (!value.is_object()) {
      return Fail(absl::StrCat("invalid metadata: must be an object, got ",
                               value.Describe()));
    }
    return value.ForEachMember([&](absl::string_view key, JsonValue text) {
      if (text.is_string()) return absl::OkStatus();
      return Fail(absl::StrCat("invalid metadata: ", Quoted(key),
                               " must be a string, got ", text.Describe()));
    });
  }

  absl::Status ReadEntry(absl::string_view key, JsonValue value) {
    Entry entry;
    entry.name = std::string(key);
    QK_ASSIGN_OR_RETURN(const absl::string_view dtype,
                        value.GetString("dtype"));
    const auto* type =
        std::find_if(std::begin(kTypes), std::end(kTypes),
                     [&](const StoredType& t) { return t.name == dtype; });
    if (type == std::end(kTypes)) {
      return Fail(absl::StrCat("unsupported dtype '", Excerpt(dtype),
                               "' of tensor ", Quoted(key),
                               "; weights must be F32, F16 or BF16"));
    }
    entry.type = type;
    QK_ASSIGN_OR_RETURN(const uint64_t bytes, ReadShape(key, value, &entry));
    QK_RETURN_IF_ERROR(ReadOffsets(value, &entry));
    if (entry.begin > entry.end || entry.end - entry.begin != bytes) {
      return Fail(absl::StrCat("invalid offset for tensor ", Quoted(key), ": [",
                               entry.begin, ", ", entry.end, ") must hold ",
                               bytes, " bytes of ", type->name, " [",
                               absl::StrJoin(entry.shape, ","), "]"));
    }
    entries_.push_back(std::move(entry));
    return absl::OkStatus();
  }

  // The bytes that the shape asks for.
  absl::StatusOr<uint64_t> ReadShape(absl::string_view key, JsonValue value,
                                     Entry* entry) const {
    QK_ASSIGN_OR_RETURN(const JsonValue shape, value.GetArray("shape"));
    int64_t bytes = static_cast<int64_t>(entry->type->bytes);
    QK_RETURN_IF_ERROR(shape.ForEachElement([&](JsonValue element) {
      QK_ASSIGN_OR_RETURN(const uint64_t size, element.AsUint64());
      if (size > INT64_MAX ||
          __builtin_mul_overflow(bytes, static_cast<int64_t>(size), &bytes)) {
        return Fail(
            absl::StrCat("validation overflow: shape of tensor ", Quoted(key)));
      }
      if (entry->shape.size() == kMaxDims) {
        return element.Error(
            absl::StrCat("at most ", kMaxDims, " dimensions are allowed"));
      }
      entry->shape.push_back(static_cast<int64_t>(size));
      return absl::OkStatus();
    }));
    return static_cast<uint64_t>(bytes);
  }

  static absl::Status ReadOffsets(JsonValue value, Entry* entry) {
    QK_ASSIGN_OR_RETURN(const JsonValue offsets,
                        value.GetArray("data_offsets"));
    if (offsets.size() != 2) {
      return offsets.Error(
          absl::StrCat("must hold 2 numbers, got ", offsets.size()));
    }
    uint64_t* next = &entry->begin;
    return offsets.ForEachElement([&](JsonValue element) {
      QK_ASSIGN_OR_RETURN(*next, element.AsUint64());
      next = &entry->end;
      return absl::OkStatus();
    });
  }

  // The format says that the tensors cover the data without gap or overlap:
  // bytes that belong to no tensor could be anything.
  absl::Status CheckOffsets() {
    std::stable_sort(
        entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
          return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
        });
    uint64_t expected = 0;
    for (const Entry& entry : entries_) {
      if (entry.begin != expected) {
        return Fail(absl::StrCat("invalid offset for tensor ",
                                 Quoted(entry.name), ": starts at ",
                                 entry.begin, ", expected ", expected));
      }
      expected = entry.end;
    }
    if (expected > data_.size()) {
      return Fail(absl::StrCat("incomplete data: the tensors need ", expected,
                               " bytes, the file has ", data_.size()));
    }
    if (expected < data_.size()) {
      return Fail(absl::StrCat("extra data: ", data_.size() - expected,
                               " bytes after the last tensor"));
    }
    return absl::OkStatus();
  }

  SafetensorsContents Contents() {
    SafetensorsContents contents;
    for (Entry& entry : entries_) {
      if (!entry.type->served) {
        contents.others.push_back(std::move(entry.name));
        continue;
      }
      contents.tensors.push_back(
          {std::move(entry.name), *entry.type->served, std::move(entry.shape),
           data_.subspan(entry.begin, entry.end - entry.begin)});
    }
    return contents;
  }

  absl::string_view name_;
  absl::Span<const uint8_t> file_;
  uint64_t header_bytes_ = 0;
  absl::Span<const uint8_t> data_;
  std::vector<Entry> entries_;
};

}  // namespace

absl::StatusOr<SafetensorsContents> ParseSafetensors(
    absl::string_view name, absl::Span<const uint8_t> file) {
  return HeaderReader(name, file).Run();
}

}  // namespace qk
