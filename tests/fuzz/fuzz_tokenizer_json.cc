// Loads a tokenizer.json; if it loads, it must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view json(reinterpret_cast<const char*>(data), size);
  qk::fuzz::CheckTokenizer(qk::TokenizerFromJson(json, {}));
  return 0;
}
