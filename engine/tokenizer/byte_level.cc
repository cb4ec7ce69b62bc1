#include "engine/tokenizer/byte_level.h"

#include <array>

#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

// Bytes that are printable in Latin-1 stand for themselves.
constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
         byte >= 0xae;
}

// The other bytes take the code points from 256 on, in order.
constexpr std::array<char32_t, 256> MakeAlphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    alphabet[byte] = IsPrintable(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return alphabet;
}

constexpr std::array<char32_t, 256> kAlphabet = MakeAlphabet();
constexpr char32_t kAlphabetEnd = 256 + 68;

constexpr std::array<int16_t, kAlphabetEnd> MakeInverse() {
  std::array<int16_t, kAlphabetEnd> inverse{};
  for (auto& byte : inverse) byte = -1;
  for (int byte = 0; byte < 256; ++byte) {
    inverse[kAlphabet[byte]] = static_cast<int16_t>(byte);
  }
  return inverse;
}

constexpr std::array<int16_t, kAlphabetEnd> kInverse = MakeInverse();

}  // namespace

std::string ByteLevelSpelling(uint8_t byte) {
  std::string spelling;
  AppendUtf8(kAlphabet[byte], &spelling);
  return spelling;
}

std::optional<std::string> ByteLevelBytes(absl::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const Utf8Char c = Utf8At(token, at);
    if (c.code >= kAlphabetEnd || kInverse[c.code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kInverse[c.code]));
    at += c.size;
  }
  return bytes;
}

}  // namespace qk
