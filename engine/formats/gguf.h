// The GGUF format, versions 2 and 3, little-endian.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef QKSCOPE_ENGINE_FORMATS_GGUF_H_
#define QKSCOPE_ENGINE_FORMATS_GGUF_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/base/flat_hash.h"
#include "engine/formats/mapped_file.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// The numbers are the file format's.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// One metadata value. The parser has checked that it lies inside the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;     // kArray: of `element`
  GgufType element = GgufType::kUint8;  // the same as `type` unless an array
  uint64_t count = 0;                   // 1 unless an array
  // The values as the file stores them; a string is 8 bytes of length, then
  // text.
  absl::Span<const uint8_t> data;
};

// Everything that the file says before the tensors' bytes, as views into the
// file.
struct GgufContents {
  uint32_t version = 0;                 // 2 or 3
  std::vector<absl::string_view> keys;  // in file order
  FlatHashMap<absl::string_view, GgufValue> values;
  std::vector<TensorInfo> tensors;  // in the file's order
};

absl::StatusOr<GgufContents> ParseGguf(absl::string_view name,
                                       absl::Span<const uint8_t> file);

// Metadata errors are INVALID_ARGUMENT `file: key: must be ..., got ...`.
class GgufFile : public TensorSource {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(
      const std::string& path);
  // `file` must outlive the result. `name` starts every error.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(
      absl::string_view name, absl::Span<const uint8_t> file);

  absl::Span<const TensorInfo> tensors() const override {
    return contents_.tensors;
  }
  const TensorInfo* Find(absl::string_view name) const override;
  void DropPages() override;
  absl::Status ReadStatus() const override;
  std::string Sha256Hex() const override;
  int64_t file_bytes() const override {
    return static_cast<int64_t>(bytes_.size());
  }

  // In file order. Views live as long as this object.
  const std::vector<absl::string_view>& keys() const { return contents_.keys; }
  bool Has(absl::string_view key) const { return FindValue(key) != nullptr; }
  // Makes an entry of the metadata seem missing. INVALID_ARGUMENT if it is not
  // there.
  absl::Status Hide(absl::string_view key);
  // Returns whether `key` exists and holds an array. (A few keys are either a
  // number or an array with one number per layer.)
  bool IsArray(absl::string_view key) const;

  // Accepts every integer type whose value fits.
  absl::StatusOr<int64_t> GetInt64(absl::string_view key) const;
  // The range includes both ends.
  absl::StatusOr<int64_t> GetInt64InRange(absl::string_view key, int64_t min,
                                          int64_t max) const;
  // Accepts float32 or float64; the value must be finite.
  absl::StatusOr<double> GetDouble(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  // Returns the bytes as they lie in the file: they may hold NUL and may not be
  // UTF-8.
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;

  // These return `missing` where the key does not exist.
  absl::StatusOr<int64_t> GetInt64Or(absl::string_view key,
                                     int64_t missing) const;
  absl::StatusOr<int64_t> GetInt64InRangeOr(absl::string_view key, int64_t min,
                                            int64_t max, int64_t missing) const;
  absl::StatusOr<double> GetDoubleOr(absl::string_view key,
                                     double missing) const;
  absl::StatusOr<bool> GetBoolOr(absl::string_view key, bool missing) const;
  absl::StatusOr<absl::string_view> GetStringOr(
      absl::string_view key, absl::string_view missing) const;

  // Arrays. The strings are views into the file.
  absl::StatusOr<std::vector<absl::string_view>> GetStrings(
      absl::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInt64s(absl::string_view key) const;
  // Accepts float32 or float64 (rounded). NaN and infinity stay as they are.
  absl::StatusOr<std::vector<float>> GetFloats(absl::string_view key) const;

  // Returns INVALID_ARGUMENT `file: key: message`, for a check of the caller's.
  absl::Status Error(absl::string_view key, absl::string_view message) const;
  // The file name with which every error starts.
  const std::string& name() const { return name_; }
  // The version of the format: 2 or 3.
  uint32_t version() const { return contents_.version; }
  // The encoded value, for hashing; null if the key does not exist.
  const GgufValue* FindValue(absl::string_view key) const;

 private:
  GgufFile(std::string name, std::unique_ptr<MappedFile> file,
           absl::Span<const uint8_t> bytes, GgufContents contents);

  absl::Status WrongType(absl::string_view key, absl::string_view expected,
                         const GgufValue& value) const;
  absl::StatusOr<const GgufValue*> Get(absl::string_view key) const;
  absl::StatusOr<const GgufValue*> GetArray(absl::string_view key) const;

  std::string name_;
  std::unique_ptr<MappedFile> file_;  // null after Parse
  absl::Span<const uint8_t> bytes_;
  GgufContents contents_;
  std::vector<std::string> hidden_keys_;
  FlatHashMap<absl::string_view, size_t> tensor_index_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_GGUF_H_
