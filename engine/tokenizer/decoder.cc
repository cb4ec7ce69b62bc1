#include "engine/tokenizer/decoder.h"

#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/byte_level.h"

namespace qk {

std::string TokenDecoder::Piece(absl::string_view token) const {
  if (kind == Kind::kByteLevel) {
    return ByteLevelBytes(token).value_or(std::string(token));
  }
  std::string piece = from.empty() ? std::string(token)
                                   : absl::StrReplaceAll(token, {{from, to}});
  if (byte_fallback) {
    const auto byte = ByteOfToken(piece);
    if (byte.ok()) return std::string(1, static_cast<char>(*byte));
  }
  return piece;
}

std::optional<std::string> TokenDecoder::FirstPiece(
    absl::string_view token) const {
  if (!first_without || !absl::StrContains(token, from)) return std::nullopt;
  return absl::StrReplaceAll(token, {{from, ""}});
}

std::string TokenDecoder::Finish(std::string text) const {
  size_t begin = 0;
  for (int i = 0; i < strip_left; ++i) {
    if (text.compare(begin, stripped.size(), stripped) != 0) break;
    begin += stripped.size();
  }
  text.erase(0, begin);
  return text;
}

}  // namespace qk
