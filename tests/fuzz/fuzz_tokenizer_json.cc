// Loads a tokenizer.json with the three files beside it, separated by 0xff; if
// it loads, it must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const absl::string_view json = qk::fuzz::NextFile(&rest);
  qk::fuzz::CheckTokenizer(
      qk::TokenizerFromJson(json, qk::fuzz::NextSettings(&rest)));
  return 0;
}
