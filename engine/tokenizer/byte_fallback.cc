#include "engine/tokenizer/byte_fallback.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = absl::ascii_toupper(static_cast<unsigned char>(c));
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

bool LooksLikeByteToken(absl::string_view token) {
  return token.size() == 6 && absl::StartsWith(token, "<0x") &&
         absl::EndsWith(token, ">");
}

absl::StatusOr<uint8_t> ByteOfToken(absl::string_view token) {
  if (LooksLikeByteToken(token)) {
    const int high = HexDigit(token[3]);
    const int low = HexDigit(token[4]);
    if (high >= 0 && low >= 0) return static_cast<uint8_t>(high * 16 + low);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("bad byte token \"", Excerpt(token), "\""));
}

absl::StatusOr<ByteTokens> FindByteTokens(
    const std::vector<std::string>& tokens) {
  ByteTokens ids;
  ids.fill(-1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!LooksLikeByteToken(tokens[id])) continue;
    QK_ASSIGN_OR_RETURN(const uint8_t byte, ByteOfToken(tokens[id]));
    // Prefers the spelling in capitals, as files write it, if both exist.
    if (ids[byte] < 0 || tokens[id] == absl::StrFormat("<0x%02X>", byte)) {
      ids[byte] = static_cast<int32_t>(id);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (ids[byte] < 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "byte token \"<0x%02X>\" is missing, there must be all 256", byte));
    }
  }
  return ids;
}

ByteTokens ByteTokensOf(const TokenIndex& index) {
  ByteTokens ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = index.find(absl::StrFormat("<0x%02X>", byte));
    ids[byte] = found == index.end() ? -1 : found->second;
  }
  return ids;
}

}  // namespace qk
