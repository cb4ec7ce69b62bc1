// Loads the three files beside a tokenizer.model, each with 0xff after it, and
// then the model; if it loads, it must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const qk::TokenizerSettings settings = qk::fuzz::NextSettings(&rest);
  qk::fuzz::CheckTokenizer(qk::TokenizerFromSentencePiece(rest, settings));
  return 0;
}
