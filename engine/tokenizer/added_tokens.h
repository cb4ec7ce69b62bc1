// Finds the tokens that are taken from the text before BPE sees it: special
// tokens ("<|im_start|>") and words added to a trained vocabulary.
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
  // Text matches this token only if EncodeOptions::parse_special is set.
  bool special = false;
  // The token never matches inside a word, that is, next to a \w.
  bool single_word = false;
  // The token takes the whitespace on its left (or right) with it.
  bool lstrip = false;
  bool rstrip = false;
  // The token is searched in the normalised text, by its own normalised
  // content.
  bool normalized = false;

  // Returns whether all but the id is the same.
  bool SameFlags(const AddedToken& other) const {
    return content == other.content && special == other.special &&
           single_word == other.single_word && lstrip == other.lstrip &&
           rstrip == other.rstrip && normalized == other.normalized;
  }

  // Returns what the token at [begin, end) of `text` covers together with its
  // whitespace. The result never begins before `least`.
  std::pair<size_t, size_t> WithWhitespace(absl::string_view text, size_t least,
                                           size_t begin, size_t end) const;
};

// Finds added tokens: the longest one at each place, from left to right, as the
// `tokenizers` package does. There is one difference: whitespace that `rstrip`
// took is not searched again for a token that starts with whitespace.
class AddedTokenMatcher {
 public:
  // Contents must not be empty. The pointers must outlive the matcher.
  // `spelling` is the content as the searched text spells it.
  struct Entry {
    const AddedToken* token;
    std::string spelling;
  };
  explicit AddedTokenMatcher(const std::vector<Entry>& entries);

  // Calls `visit` for all parts of `text` (valid UTF-8) in order, with nullptr
  // for the parts between tokens. The parts cover the text.
  void ForEachPart(
      absl::string_view text,
      absl::FunctionRef<void(size_t begin, size_t end, const AddedToken* token)>
          visit) const;

 private:
  // Returns the longest token at `begin` and its end; nullptr if there is none.
  std::pair<const AddedToken*, size_t> LongestAt(absl::string_view text,
                                                 size_t begin) const;
  uint32_t Child(uint32_t node, unsigned char byte) const;

  // A trie over bytes. Node 0 is the root and never a child.
  std::array<uint32_t, 256> root_ = {};
  FlatHashMap<uint64_t, uint32_t> children_;  // node << 8 | byte
  std::vector<const AddedToken*> tokens_;     // by node
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_ADDED_TOKENS_H_
