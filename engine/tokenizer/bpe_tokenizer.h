// The BPE tokenizer, of bytes (as GPT-2) or of characters (as SentencePiece).
// The readers of tokenizer.json, GGUF and tokenizer.model fill in a
// BpeTokenizerSpec.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {

// Everything that a file says, checked: all ids are in [0, tokens.size()).
struct BpeTokenizerSpec {
  std::vector<std::string> tokens;  // by id, spelled as in the file; UTF-8
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added;  // contents are not empty
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  // Merges start from bytes, which tokens spell in GPT-2's alphabet, or else
  // from characters.
  bool byte_level = true;
  // A word that is itself a token is not built by merges.
  bool ignore_merges = false;
  // Characters that have no token but may be merged: their ids count from
  // tokens.size() on.
  FlatHashMap<char32_t, int32_t> char_ids;
  // Stands for characters that no token spells,
  std::optional<ByteTokens> byte_tokens;
  // or else for these and for bytes without a token; nullopt: they are left
  // out.
  std::optional<int32_t> unknown_id;
  // A run of unknown characters becomes one unknown token.
  bool fuse_unknown = false;
  TokenDecoder decoder;
  // add_special_tokens puts these before and after the text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> stop_ids;
  std::string sha256_hex;
};

class BpeTokenizer : public Tokenizer {
 public:
  // Leaves out a merge that makes a special token or a byte token: text must
  // never become one.
  explicit BpeTokenizer(BpeTokenizerSpec spec);

  absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text, const EncodeOptions& options) const override;
  absl::StatusOr<std::vector<TokenSpan>> EncodeAround(
      absl::string_view text,
      absl::Span<const TokenSpan> special) const override;
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids,
                                     bool keep_special) const override;
  std::string Piece(int32_t id) const override;
  bool IsSpecial(int32_t id) const override;
  std::optional<int32_t> FindSpecial(absl::string_view text) const override;
  int32_t vocab_size() const override {
    return static_cast<int32_t>(pieces_.size());
  }
  std::optional<int32_t> bos_id() const override { return spec_.bos_id; }
  const std::vector<int32_t>& stop_ids() const override {
    return spec_.stop_ids;
  }
  bool adds_special_tokens_by_default() const override {
    return !spec_.prefix.empty() || !spec_.suffix.empty();
  }
  bool runs_pattern() const override {
    return spec_.pre_tokenizer.runs_pattern();
  }
  const std::string& sha256_hex() const override { return spec_.sha256_hex; }

 private:
  // The text and the result of one Encode call.
  struct Encoding;
  // The added tokens that count: index 1 with special tokens, 0 without.
  struct Matchers {
    AddedTokenMatcher raw;
    AddedTokenMatcher normalized;
  };

  Matchers MakeMatchers(bool with_special) const;
  void FindByteIds();
  void FindCharIds();
  void FindWholeWords();
  void EncodeSection(size_t begin, size_t end, Encoding* encoding) const;
  void EncodePart(size_t begin, size_t end, Encoding* encoding) const;
  void EncodeWord(const Word& word, Encoding* encoding) const;
  // The symbols from which merges start. Those that no token spells have the id
  // unknown_symbol().
  void StartSymbols(absl::string_view word,
                    std::vector<BpeSymbol>* symbols) const;
  // Handles the symbols from number `first` on that no token spells; returns
  // the number after them.
  size_t EncodeUnknown(const Word& word, size_t first,
                       Encoding* encoding) const;
  int32_t unknown_symbol() const { return INT32_MAX; }

  BpeTokenizerSpec spec_;  // without tokens and merges, which have become:
  std::vector<std::string> pieces_;  // by id: the bytes of each token
  std::vector<bool> special_;        // by id
  BpeMergeTable merges_;
  std::array<int32_t, 256> byte_ids_;  // or unknown_symbol()
  FlatHashMap<char32_t, int32_t> char_ids_;
  // Used with ignore_merges.
  FlatHashMap<std::string, int32_t> whole_words_;
  FlatHashMap<absl::string_view, int32_t> added_ids_;
  FlatHashMap<int32_t, const AddedToken*> added_by_id_;
  // The bytes of a token that comes first in a text, where they differ.
  FlatHashMap<int32_t, std::string> first_pieces_;
  std::array<std::unique_ptr<const Matchers>, 2> matchers_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_
