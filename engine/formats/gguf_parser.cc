// Bytes to GgufContents. Every count is compared with the bytes that are left
// before anything is allocated or skipped for it.
#include "engine/formats/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf.h"
#include "engine/formats/gguf_types.h"

namespace qk {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxKeys = 65536;
constexpr uint64_t kMaxTensors = 65536;
constexpr uint64_t kMinKeyRecord = 8 + 1 + 4 + 1;  // length, key, type, value
constexpr uint64_t kMinTensorRecord = 8 + 1 + 4 + 8 + 4 + 8;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 65536;
constexpr absl::string_view kAlignmentKey = "general.alignment";

class Parser {
 public:
  Parser(absl::string_view name, absl::Span<const uint8_t> file)
      : file_(file), reader_(name, file) {}

  absl::StatusOr<GgufContents> Run() {
    QK_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < key_count_; ++i) {
      QK_RETURN_IF_ERROR(ReadKeyValue(i));
    }
    QK_RETURN_IF_ERROR(CheckSplit());
    QK_RETURN_IF_ERROR(ReadAlignment());
    QK_ASSIGN_OR_RETURN(
        contents_.tensors,
        ReadGgufTensors(file_, tensor_count_, alignment_, reader_));
    return std::move(contents_);
  }

 private:
  absl::Status ReadHeader() {
    const auto magic = reader_.ReadText(4);
    if (!magic || *magic != "GGUF") {
      return absl::InvalidArgumentError(
          absl::StrCat(reader_.name(), ": not a GGUF file"));
    }
    const auto version = reader_.Read<uint32_t>();
    if (!version) return reader_.Fail("header too small");
    if (*version != 2 && *version != 3) {
      const bool swapped = __builtin_bswap32(*version) <= 3 && *version != 0;
      return reader_.Fail(absl::StrCat("unsupported version ", *version,
                                       swapped ? " (a big-endian file)" : "",
                                       "; expected 2 or 3"));
    }
    contents_.version = *version;
    const auto tensor_count = reader_.Read<uint64_t>();
    const auto key_count = reader_.Read<uint64_t>();
    if (!tensor_count || !key_count) return reader_.Fail("header too small");
    tensor_count_ = *tensor_count;
    key_count_ = *key_count;
    QK_RETURN_IF_ERROR(CheckCount("n_kv", key_count_, kMinKeyRecord, kMaxKeys));
    return CheckCount("n_tensors", tensor_count_, kMinTensorRecord,
                      kMaxTensors);
  }

  absl::Status CheckCount(absl::string_view what, uint64_t count,
                          uint64_t record_bytes, uint64_t limit) const {
    if (count > reader_.left() / record_bytes) {
      return reader_.Fail(absl::StrCat(what, " ", count, " cannot fit in ",
                                       reader_.left(), " bytes"));
    }
    if (count > limit) {
      return reader_.Fail(absl::StrCat(what, " ", count, ", limit ", limit));
    }
    return absl::OkStatus();
  }

  absl::Status ReadKeyValue(uint64_t number) {
    const std::string where = absl::StrCat("key #", number);
    QK_ASSIGN_OR_RETURN(const absl::string_view key, reader_.ReadString(where));
    if (key.empty() || key.size() > kMaxKeyBytes) {
      return reader_.Fail(absl::StrCat(where, ": must have 1 to ", kMaxKeyBytes,
                                       " bytes, got ", key.size()));
    }
    if (absl::StrContains(key, '\0')) {
      return reader_.Fail(absl::StrCat(where, ": NUL in '", Excerpt(key), "'"));
    }
    QK_ASSIGN_OR_RETURN(const GgufValue value,
                        ReadValue(absl::StrCat("kv '", Excerpt(key), "'")));
    if (!contents_.values.emplace(key, value).second) {
      return reader_.Fail(
          absl::StrCat(where, ": duplicate '", Excerpt(key), "'"));
    }
    contents_.keys.push_back(key);
    return absl::OkStatus();
  }

  absl::StatusOr<GgufType> ReadType(absl::string_view where) {
    const auto type = reader_.Read<uint32_t>();
    if (!type)
      return reader_.Fail(absl::StrCat(where, ": file ends before the type"));
    if (*type > static_cast<uint32_t>(GgufType::kFloat64)) {
      return reader_.Fail(absl::StrCat(where, ": unknown value type ", *type));
    }
    return static_cast<GgufType>(*type);
  }

  absl::StatusOr<GgufValue> ReadValue(absl::string_view where) {
    GgufValue value;
    QK_ASSIGN_OR_RETURN(value.type, ReadType(where));
    value.element = value.type;
    value.count = 1;
    if (value.type == GgufType::kArray) {
      QK_ASSIGN_OR_RETURN(value.element, ReadType(where));
      if (value.element == GgufType::kArray) {
        return reader_.Fail(
            absl::StrCat(where, ": arrays of arrays are unsupported"));
      }
      const auto count = reader_.Read<uint64_t>();
      if (!count)
        return reader_.Fail(absl::StrCat(where, ": file ends in an array"));
      value.count = *count;
    }
    const uint64_t start = reader_.position();
    QK_RETURN_IF_ERROR(SkipElements(where, value));
    value.data = file_.subspan(start, reader_.position() - start);
    if (value.element == GgufType::kBool) {
      for (const uint8_t byte : value.data) {
        if (byte > 1) {
          return reader_.Fail(absl::StrCat(
              where, ": a bool must be 0 or 1, got ", static_cast<int>(byte)));
        }
      }
    }
    return value;
  }

  absl::Status SkipElements(absl::string_view where, const GgufValue& value) {
    const uint64_t least = MinBytes(value.element);
    if (value.count > reader_.left() / least) {
      return reader_.Fail(
          absl::StrCat(where, ": ", value.count, " x ", TypeName(value.element),
                       " go past end (", reader_.left(), " bytes left)"));
    }
    if (value.element != GgufType::kString) {
      reader_.Skip(value.count * least);
      return absl::OkStatus();
    }
    for (uint64_t i = 0; i < value.count; ++i) {
      QK_RETURN_IF_ERROR(reader_.ReadString(where).status());
    }
    return absl::OkStatus();
  }

  // Each file of a model that is split over several names the number of parts.
  absl::Status CheckSplit() const {
    const auto count = contents_.values.find("split.count");
    if (count == contents_.values.end()) return absl::OkStatus();
    const auto total = IntegerAt(count->second, 0);
    if (count->second.type == GgufType::kArray || !total || *total < 0) {
      return reader_.Fail("split.count: must be an integer >= 0");
    }
    const auto number = contents_.values.find("split.no");
    if (number != contents_.values.end()) {
      const auto part = IntegerAt(number->second, 0);
      if (number->second.type == GgufType::kArray || !part || *part < 0 ||
          *part >= std::max<int64_t>(*total, 1)) {
        return reader_.Fail("split.no: must be an integer in [0, split.count)");
      }
    }
    if (*total > 1) {
      return absl::UnimplementedError(
          absl::StrCat(reader_.name(), ": split.count: a model in ", *total,
                       " files is not supported; merge them into one"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadAlignment() {
    const auto found = contents_.values.find(kAlignmentKey);
    if (found == contents_.values.end()) return absl::OkStatus();
    const GgufValue& value = found->second;
    if (value.type != GgufType::kUint32) {
      return reader_.Fail(absl::StrCat(
          kAlignmentKey, ": must be power of two, of type u32, got ",
          Describe(value)));
    }
    alignment_ = LoadLittleEndian<uint32_t>(value.data.data());
    if (!std::has_single_bit(alignment_) || alignment_ > kMaxAlignment) {
      return reader_.Fail(absl::StrCat(kAlignmentKey,
                                       ": must be power of two and at most ",
                                       kMaxAlignment, ", got ", alignment_));
    }
    return absl::OkStatus();
  }

  absl::Span<const uint8_t> file_;
  GgufReader reader_;
  uint64_t key_count_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  GgufContents contents_;
};

}  // namespace

absl::StatusOr<GgufContents> ParseGguf(absl::string_view name,
                                       absl::Span<const uint8_t> file) {
  return Parser(name, file).Run();
}

}  // namespace qk
