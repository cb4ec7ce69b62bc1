// SentencePiece's normalisation rules (`precompiled_charsmap`): a trie of what
// is replaced, as a double array, and the texts that replace it.
// https://github.com/google/sentencepiece/blob/master/src/normalizer.cc
#ifndef QKSCOPE_ENGINE_TOKENIZER_CHARSMAP_H_
#define QKSCOPE_ENGINE_TOKENIZER_CHARSMAP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

// Thread-safe. Bytes are not trusted: a rule that points outside is none.
class Charsmap {
 public:
  // Errors are messages without a place, for the caller to wrap: the bytes are
  // too short for the trie, or the texts are not UTF-8.
  static absl::StatusOr<std::shared_ptr<const Charsmap>> Create(
      absl::string_view bytes);

  // Returns what replaces `chunk`: the text of the shortest rule that it begins
  // with, as in `tokenizers`; nullopt if there is none.
  std::optional<absl::string_view> Find(absl::string_view chunk) const;

  // Writes what the rules change in `text` (valid UTF-8) to `edit`, an edit of
  // this text. A grapheme cluster of up to 5 bytes is replaced as a whole, else
  // each of its characters.
  void Apply(absl::string_view text, TextEdit* edit) const;

 private:
  Charsmap() = default;

  std::vector<uint32_t> units_;  // the double array
  std::string texts_;            // each ends with a zero byte
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_CHARSMAP_H_
