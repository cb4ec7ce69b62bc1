// Reads little-endian values from bytes that may end at any point.
#ifndef QKSCOPE_ENGINE_FORMATS_BYTE_READER_H_
#define QKSCOPE_ENGINE_FORMATS_BYTE_READER_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace qk {

static_assert(std::endian::native == std::endian::little);

template <typename T>
T LoadLittleEndian(const uint8_t* src) {
  static_assert(std::is_arithmetic_v<T>);
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

class ByteReader {
 public:
  explicit ByteReader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  // Returns nullopt and consumes nothing if too few bytes are left.
  template <typename T>
  std::optional<T> Read() {
    const auto raw = Skip(sizeof(T));
    if (!raw) return std::nullopt;
    return LoadLittleEndian<T>(raw->data());
  }

  std::optional<absl::Span<const uint8_t>> Skip(uint64_t count) {
    if (count > left()) return std::nullopt;
    const auto skipped = bytes_.subspan(position_, count);
    position_ += count;
    return skipped;
  }

  std::optional<absl::string_view> ReadText(uint64_t count) {
    const auto raw = Skip(count);
    if (!raw) return std::nullopt;
    return absl::string_view(reinterpret_cast<const char*>(raw->data()),
                             raw->size());
  }

 private:
  absl::Span<const uint8_t> bytes_;
  uint64_t position_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_BYTE_READER_H_
