#include "engine/tokenizer/tokenizer.h"

#include "engine/base/check.h"

namespace qk {

absl::StatusOr<std::vector<TokenSpan>> Tokenizer::EncodeAround(
    absl::string_view text, absl::Span<const TokenSpan> special) const {
  EncodeOptions options;
  options.add_special_tokens = false;
  std::vector<TokenSpan> tokens;
  uint32_t done = 0;
  const auto encode_to = [&](size_t end) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const auto part,
                        Encode(text.substr(done, end - done), options));
    for (const TokenSpan& token : part) {
      tokens.push_back({token.id, token.begin + done, token.end + done});
    }
    return absl::OkStatus();
  };
  for (const TokenSpan& token : special) {
    QK_RETURN_IF_ERROR(encode_to(token.begin));
    tokens.push_back(token);
    done = token.end;
  }
  QK_RETURN_IF_ERROR(encode_to(text.size()));
  return tokens;
}

}  // namespace qk
