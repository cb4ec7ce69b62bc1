// Loads a tokenizer.model; if it loads, it must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // The first byte chooses a config.
  constexpr const char* kConfigs[] = {
      "", R"({"legacy": false})", R"({"add_prefix_space": false})",
      R"({"added_tokens_decoder": {"1": {"content": "<s>", "rstrip": true}}})",
      R"({"tokenizer_class": "T5Tokenizer", "extra_ids": 3})"};
  const absl::string_view model(reinterpret_cast<const char*>(data) + 1,
                                size - 1);
  qk::fuzz::CheckTokenizer(
      qk::TokenizerFromSentencePiece(model, {.config = kConfigs[data[0] % 5]}));
  return 0;
}
