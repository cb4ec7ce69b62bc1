// Adds tokens to a vocabulary as the `tokenizers` package does.
#ifndef QKSCOPE_ENGINE_TOKENIZER_TOKEN_ADDER_H_
#define QKSCOPE_ENGINE_TOKENIZER_TOKEN_ADDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// A token's id follows from its content alone: a token of the vocabulary keeps
// its id, a new one gets the number of the vocabulary's tokens (of its entries,
// in a unigram model, where a text may be there twice) or, if that is larger,
// the last new id plus one. An id that a file states for it does not count.
class TokenAdder {
 public:
  // `vocabulary` has every token of spec->tokens. Both must outlive the adder.
  // The tokens of spec->added must be among them.
  TokenAdder(const TokenIndex& vocabulary, TokenizerSpec* spec);

  // Adds the token, or gives these flags to the one with this content. One
  // without content is left out. The token's own `id` does not count. Errors
  // are messages without a place: the content is too long, there are too many
  // tokens, or the id belongs to another token (a vocabulary with holes).
  absl::Status Add(AddedToken token);

  // Returns the id of a token of the vocabulary or an added one.
  std::optional<int32_t> Find(absl::string_view content) const;
  // Returns the added token of that content; nullptr if there is none. The
  // pointer is valid until the next Add.
  const AddedToken* FindAdded(absl::string_view content) const;

 private:
  absl::Status AddNew(const AddedToken& token);

  const TokenIndex& vocabulary_;
  TokenizerSpec* const spec_;
  std::map<std::string, int32_t, std::less<>> new_ids_;
  FlatHashMap<int32_t, size_t> place_;  // of an id, in spec->added
  int32_t next_id_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_TOKEN_ADDER_H_
