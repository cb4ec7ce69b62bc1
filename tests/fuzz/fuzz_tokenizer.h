// Checks what a tokenizer made from untrusted bytes must do.
#ifndef QKSCOPE_TESTS_FUZZ_FUZZ_TOKENIZER_H_
#define QKSCOPE_TESTS_FUZZ_FUZZ_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace qk::fuzz {

// Returns the part of `rest` before the next byte 0xff, which no JSON file
// contains, and removes both.
inline absl::string_view NextFile(absl::string_view* rest) {
  const size_t at = rest->find('\xff');
  const absl::string_view file = rest->substr(0, at);
  rest->remove_prefix(at == absl::string_view::npos ? rest->size() : at + 1);
  return file;
}

// Takes the three files beside a vocabulary: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json.
inline TokenizerSettings NextSettings(absl::string_view* rest) {
  TokenizerSettings settings;
  settings.config = NextFile(rest);
  settings.special_tokens_map = NextFile(rest);
  settings.added_tokens = NextFile(rest);
  return settings;
}

inline void CheckTokenizer(
    const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer) {
  if (!tokenizer.ok()) return CheckMessage(tokenizer.status());
  for (const bool parse_special : {false, true}) {
    EncodeOptions options;
    options.parse_special = parse_special;
    const absl::string_view text =
        " abcab <s> it's\n\n 12  e\u0301\u65e5\u2581\u2581a<0x41>";
    const auto tokens = (*tokenizer)->Encode(text, options);
    if (!tokens.ok()) {
      CheckMessage(tokens.status());
      continue;
    }
    std::vector<int32_t> ids;
    for (const TokenSpan& token : *tokens) {
      QK_CHECK(token.begin <= token.end && token.end <= text.size());
      ids.push_back(token.id);
    }
    QK_CHECK((*tokenizer)->Decode(ids, true).ok());
    QK_CHECK((*tokenizer)->Decode(ids, false).ok());
  }
}

}  // namespace qk::fuzz

#endif  // QKSCOPE_TESTS_FUZZ_FUZZ_TOKENIZER_H_
