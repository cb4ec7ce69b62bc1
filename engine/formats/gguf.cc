#include "engine/formats/gguf.h"

#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/formats/byte_reader.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf_types.h"

namespace qk {

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(
    const std::string& path) {
  QK_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  const absl::Span<const uint8_t> bytes = file->bytes();
  absl::StatusOr<GgufContents> contents = ParseGguf(file->name(), bytes);
  if (!contents.ok()) return file->Explain(contents.status());
  std::string name = file->name();
  return std::unique_ptr<GgufFile>(new GgufFile(
      std::move(name), std::move(file), bytes, *std::move(contents)));
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(
    absl::string_view name, absl::Span<const uint8_t> file) {
  QK_ASSIGN_OR_RETURN(GgufContents contents, ParseGguf(name, file));
  return std::unique_ptr<GgufFile>(
      new GgufFile(std::string(name), nullptr, file, std::move(contents)));
}

GgufFile::GgufFile(std::string name, std::unique_ptr<MappedFile> file,
                   absl::Span<const uint8_t> bytes, GgufContents contents)
    : name_(std::move(name)),
      file_(std::move(file)),
      bytes_(bytes),
      contents_(std::move(contents)) {
  for (size_t i = 0; i < contents_.tensors.size(); ++i) {
    tensor_index_.emplace(contents_.tensors[i].name, i);
  }
}

const TensorInfo* GgufFile::Find(absl::string_view name) const {
  const auto found = tensor_index_.find(name);
  if (found == tensor_index_.end()) return nullptr;
  return &contents_.tensors[found->second];
}

void GgufFile::DropPages() {
  if (file_ != nullptr) file_->DropPages();
}

absl::Status GgufFile::ReadStatus() const {
  return file_ == nullptr ? absl::OkStatus() : file_->ReadStatus();
}

std::string GgufFile::Sha256Hex() const {
  Sha256 sha;
  sha.Update(bytes_.data(), bytes_.size());
  return sha.FinishHex();
}

absl::Status GgufFile::Error(absl::string_view key,
                             absl::string_view message) const {
  return absl::InvalidArgumentError(
      absl::StrCat(name_, ": ", Excerpt(key), ": ", message));
}

absl::Status GgufFile::WrongType(absl::string_view key,
                                 absl::string_view expected,
                                 const GgufValue& value) const {
  return Error(key,
               absl::StrCat("must be ", expected, ", got ", Describe(value)));
}

const GgufValue* GgufFile::FindValue(absl::string_view key) const {
  const auto found = contents_.values.find(key);
  if (found == contents_.values.end() ||
      absl::c_linear_search(hidden_keys_, key)) {
    return nullptr;
  }
  return &found->second;
}

absl::Status GgufFile::Hide(absl::string_view key) {
  if (!Has(key)) return Error(key, "missing");
  hidden_keys_.emplace_back(key);
  std::erase(contents_.keys, key);
  return absl::OkStatus();
}

bool GgufFile::IsArray(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  return value != nullptr && value->type == GgufType::kArray;
}

absl::StatusOr<const GgufValue*> GgufFile::Get(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Error(key, "missing");
  return value;
}

absl::StatusOr<const GgufValue*> GgufFile::GetArray(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, Get(key));
  if (value->type != GgufType::kArray)
    return WrongType(key, "an array", *value);
  return value;
}

absl::StatusOr<int64_t> GgufFile::GetInt64(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, Get(key));
  if (value->type != GgufType::kArray) {
    if (const auto number = IntegerAt(*value, 0)) return *number;
  }
  return WrongType(key, "an integer", *value);
}

absl::StatusOr<int64_t> GgufFile::GetInt64InRange(absl::string_view key,
                                                  int64_t min,
                                                  int64_t max) const {
  QK_ASSIGN_OR_RETURN(const int64_t number, GetInt64(key));
  if (number >= min && number <= max) return number;
  return Error(key,
               absl::StrCat("must be in [", min, ", ", max, "], got ", number));
}

absl::StatusOr<double> GgufFile::GetDouble(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, Get(key));
  if (value->type != GgufType::kArray) {
    const auto number = FloatAt(*value, 0);
    if (number && std::isfinite(*number)) return *number;
  }
  return WrongType(key, "a finite f32 or f64", *value);
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, Get(key));
  if (value->type == GgufType::kBool) return value->data[0] != 0;
  return WrongType(key, "a bool", *value);
}

absl::StatusOr<absl::string_view> GgufFile::GetString(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, Get(key));
  if (value->type == GgufType::kString) return StringOf(*value);
  return WrongType(key, "a string", *value);
}

absl::StatusOr<int64_t> GgufFile::GetInt64Or(absl::string_view key,
                                             int64_t missing) const {
  return Has(key) ? GetInt64(key) : missing;
}

absl::StatusOr<int64_t> GgufFile::GetInt64InRangeOr(absl::string_view key,
                                                    int64_t min, int64_t max,
                                                    int64_t missing) const {
  return Has(key) ? GetInt64InRange(key, min, max) : missing;
}

absl::StatusOr<double> GgufFile::GetDoubleOr(absl::string_view key,
                                             double missing) const {
  return Has(key) ? GetDouble(key) : missing;
}

absl::StatusOr<bool> GgufFile::GetBoolOr(absl::string_view key,
                                         bool missing) const {
  return Has(key) ? GetBool(key) : missing;
}

absl::StatusOr<absl::string_view> GgufFile::GetStringOr(
    absl::string_view key, absl::string_view missing) const {
  return Has(key) ? GetString(key) : missing;
}

absl::StatusOr<std::vector<absl::string_view>> GgufFile::GetStrings(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, GetArray(key));
  if (value->element != GgufType::kString) {
    return WrongType(key, "an array of strings", *value);
  }
  std::vector<absl::string_view> strings;
  strings.reserve(value->count);
  ByteReader reader(value->data);
  for (uint64_t i = 0; i < value->count; ++i) {
    // The parser has walked over the same bytes.
    strings.push_back(*reader.ReadText(*reader.Read<uint64_t>()));
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInt64s(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, GetArray(key));
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto number = IntegerAt(*value, i);
    if (!number) return WrongType(key, "an array of integers", *value);
    numbers.push_back(*number);
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloats(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const GgufValue* value, GetArray(key));
  std::vector<float> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto number = FloatAt(*value, i);
    if (!number) return WrongType(key, "an array of f32 or f64", *value);
    numbers.push_back(static_cast<float>(*number));
  }
  return numbers;
}

}  // namespace qk
