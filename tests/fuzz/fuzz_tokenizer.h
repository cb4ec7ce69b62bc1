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
