// JSON from files we do not trust: config.json, tokenizer.json, headers and
// indexes of safetensors. simdjson parses; this layer adds limits, refuses
// duplicate keys, and makes errors that name the field:
//
//   QK_ASSIGN_OR_RETURN(JsonDocument doc,
//                       JsonDocument::Parse("config", bytes, {}));
//   QK_ASSIGN_OR_RETURN(int64_t heads, doc.root().GetInt64InRange(
//                                          "num_attention_heads", 1, 65536));
//
// gives `config: num_attention_heads: must be an integer, got 1.5`.
// All errors are INVALID_ARGUMENT.
#ifndef QKSCOPE_ENGINE_FORMATS_JSON_H_
#define QKSCOPE_ENGINE_FORMATS_JSON_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// What a number may look like. Python's json module writes, and reads, what
// JSON does not have: NaN, Infinity, -Infinity, and integers of any length.
// Such a number is an error only where it is asked for.
enum class JsonNumbers { kStrict, kPython };

enum class JsonType { kNull, kBool, kNumber, kString, kArray, kObject };

struct JsonLimits {
  int64_t max_bytes = int64_t{64} << 20;
  int max_depth = 32;  // nested arrays and objects; `{}` has depth 1
  JsonType root = JsonType::kObject;
  JsonNumbers numbers = JsonNumbers::kPython;
};

// A light handle (24 bytes), cheap to copy. It is valid as long as its
// document.
class JsonValue {
 public:
  JsonType type() const;
  bool is_null() const { return type() == JsonType::kNull; }
  bool is_string() const { return type() == JsonType::kString; }
  bool is_number() const { return type() == JsonType::kNumber; }
  bool is_array() const { return type() == JsonType::kArray; }
  bool is_object() const { return type() == JsonType::kObject; }

  // An integer must be written as one: 1.0 and 1e3 are refused.
  absl::StatusOr<int64_t> AsInt64() const;
  absl::StatusOr<uint64_t> AsUint64() const;
  // Integers are converted, those over 64 bits too. The result is always
  // finite.
  absl::StatusOr<double> AsDouble() const;
  absl::StatusOr<bool> AsBool() const;
  // The text is valid UTF-8, may hold NUL, and lives in the document.
  absl::StatusOr<absl::string_view> AsString() const;

  // Objects. A member that is null counts as missing, because Hugging Face
  // writes "rope_scaling": null. The search is linear: iterate to use every
  // member of a large object.
  std::optional<JsonValue> Find(absl::string_view key) const;
  absl::StatusOr<JsonValue> Get(absl::string_view key) const;

  absl::StatusOr<int64_t> GetInt64(absl::string_view key) const;
  // The range includes both ends.
  absl::StatusOr<int64_t> GetInt64InRange(absl::string_view key, int64_t min,
                                          int64_t max) const;
  absl::StatusOr<double> GetDouble(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  absl::StatusOr<JsonValue> GetArray(absl::string_view key) const;
  absl::StatusOr<JsonValue> GetObject(absl::string_view key) const;

  // These return `missing` where the member is missing or null.
  absl::StatusOr<int64_t> GetInt64Or(absl::string_view key,
                                     int64_t missing) const;
  absl::StatusOr<int64_t> GetInt64InRangeOr(absl::string_view key, int64_t min,
                                            int64_t max, int64_t missing) const;
  absl::StatusOr<double> GetDoubleOr(absl::string_view key,
                                     double missing) const;
  absl::StatusOr<bool> GetBoolOr(absl::string_view key, bool missing) const;
  absl::StatusOr<absl::string_view> GetStringOr(
      absl::string_view key, absl::string_view missing) const;

  // Visits in file order; stops at the first error and returns it. Returns an
  // error if this is not an object or not an array.
  absl::Status ForEachMember(
      absl::FunctionRef<absl::Status(absl::string_view key, JsonValue value)>
          visit) const;
  absl::Status ForEachElement(
      absl::FunctionRef<absl::Status(JsonValue element)> visit) const;
  // The number of elements of an array or members of an object; 0 for other
  // types.
  int64_t size() const;

  // Returns INVALID_ARGUMENT `label: path: message`, for checks that this layer
  // cannot know. Finding the path walks through the document.
  absl::Status Error(absl::string_view message) const;
  // The path of the value: `model.vocab["\xC4\xA0the"]`, `merges[17][0]`; empty
  // for the root.
  std::string Path() const;
  // The value as a message shows it: `1.5`, `"abc"`, `an array`; at most 64
  // bytes.
  std::string Describe() const;

 private:
  friend class JsonDocument;
  struct Access;
  friend struct Access;
  struct Shared;  // the parser and the label

  const Shared* shared_ = nullptr;
  std::array<uint64_t, 2> element_ = {};  // bits of a simdjson::dom::element
};

// Owns the parsed values. Moving it keeps the handles valid.
class JsonDocument {
 public:
  // `label` starts every error. `bytes` are copied where needed and need not
  // outlive the call.
  static absl::StatusOr<JsonDocument> Parse(absl::string_view label,
                                            absl::string_view bytes,
                                            const JsonLimits& limits);

  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  JsonValue root() const { return root_; }

  // Makes the member at `path` ("a.b", or a name with dots in it) and all that
  // it holds seem missing, for the handles that exist too. INVALID_ARGUMENT
  // `label: path: missing` if it is not there.
  absl::Status Hide(absl::string_view path);

 private:
  explicit JsonDocument(std::unique_ptr<JsonValue::Shared> shared);

  std::unique_ptr<JsonValue::Shared> shared_;
  JsonValue root_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_JSON_H_
