// tokenizer.json: what loads must encode and decode.
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = qk::TokenizerFromJson(json, "");
  if (!tokenizer.ok()) {
    qk::fuzz::CheckMessage(tokenizer.status());
    return 0;
  }
  for (const bool parse_special : {false, true}) {
    qk::EncodeOptions options;
    options.parse_special = parse_special;
    const absl::string_view text = "abcab <s> it's\n\n 12  e\u0301\u65e5";
    const auto tokens = (*tokenizer)->Encode(text, options);
    QK_CHECK(tokens.ok());
    std::vector<int32_t> ids;
    for (const qk::TokenSpan& token : *tokens) {
      QK_CHECK(token.begin <= token.end && token.end <= text.size());
      ids.push_back(token.id);
    }
    QK_CHECK((*tokenizer)->Decode(ids, true).ok());
  }
  return 0;
}
