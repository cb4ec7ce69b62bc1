// Loads the tokenizer of a GGUF file; if it loads, it must encode and decode.
#include <cstdint>

#include "engine/formats/gguf.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = qk::GgufFile::Parse("m", absl::MakeSpan(data, size));
  if (file.ok()) qk::fuzz::CheckTokenizer(qk::TokenizerFromGguf(**file));
  return 0;
}
