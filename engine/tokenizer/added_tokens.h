// Tokens that are found in the text before BPE sees it: special tokens
// ("<|im_start|>") and words added to a trained vocabulary.
#ifndef QKSCOPE_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define QKSCOPE_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "engine/base/flat_hash.h"

namespace qk {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  // Never found in text unless EncodeOptions::parse_special is set.
  bool special = false;
  // Not found inside a word: \w on either side.
  bool single_word = false;
  // Takes the whitespace on its left, on its right.
  bool lstrip = false;
  bool rstrip = false;
  // Found in the normalised text, by its own normalised content.
  bool normalized = false;

  // What the token at [begin, end) of `text` takes with its whitespace, of
  // which none before `least`.
  std::pair<size_t, size_t> WithWhitespace(absl::string_view text, size_t least,
                                           size_t begin, size_t end) const;
};

// Finds added tokens: at each place the longest one, from left to right, as
// the `tokenizers` package does. One difference: what `rstrip` took is not
// looked at again, where a token starts with whitespace.
class AddedTokenMatcher {
 public:
  // Contents must not be empty. Pointers must outlive the matcher. `spelling`
  // is the content as it stands in the text to be searched.
  struct Entry {
    const AddedToken* token;
    std::string spelling;
  };
  explicit AddedTokenMatcher(const std::vector<Entry>& entries);

  // Calls `visit` for all parts of the text in order, with nullptr for those
  // between the tokens. They cover `text`, valid UTF-8.
  void ForEachPart(
      absl::string_view text,
      absl::FunctionRef<void(size_t begin, size_t end, const AddedToken* token)>
          visit) const;

 private:
  // The longest token at `begin` and its end; nullptr if there is none.
  std::pair<const AddedToken*, size_t> LongestAt(absl::string_view text,
                                                 size_t begin) const;
  uint32_t Child(uint32_t node, unsigned char byte) const;

  // A trie over bytes; node 0 is the root, and no node's child.
  std::array<uint32_t, 256> root_ = {};
  FlatHashMap<uint64_t, uint32_t> children_;  // node << 8 | byte
  std::vector<const AddedToken*> tokens_;     // by node
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_ADDED_TOKENS_H_
