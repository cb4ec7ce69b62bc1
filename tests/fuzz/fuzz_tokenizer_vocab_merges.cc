// Loads vocab.json, merges.txt and the three files beside them, separated by
// 0xff; if they load, they must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const absl::string_view vocab = qk::fuzz::NextFile(&rest);
  const absl::string_view merges = qk::fuzz::NextFile(&rest);
  qk::fuzz::CheckTokenizer(qk::TokenizerFromVocabAndMerges(
      vocab, merges, qk::fuzz::NextSettings(&rest)));
  return 0;
}
