// Loads vocab.json, merges.txt and tokenizer_config.json, separated by a byte
// that none of them contains; if they load, they must encode and decode.
#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_tokenizer.h"

namespace {

// Returns the part before the next 0xff, and removes both.
absl::string_view Next(absl::string_view* rest) {
  const size_t at = rest->find('\xff');
  const absl::string_view part = rest->substr(0, at);
  rest->remove_prefix(at == absl::string_view::npos ? rest->size() : at + 1);
  return part;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const absl::string_view vocab = Next(&rest);
  const absl::string_view merges = Next(&rest);
  qk::fuzz::CheckTokenizer(
      qk::TokenizerFromVocabAndMerges(vocab, merges, {.config = rest}));
  return 0;
}
