// The tokenizer that every reader makes: added tokens, normalizer,
// pre-tokenizer, then a model (BPE or unigram) for the words, and a decoder for
// the way back.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SUBWORD_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_SUBWORD_TOKENIZER_H_

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
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_model.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

class SubwordTokenizer : public Tokenizer {
 public:
  explicit SubwordTokenizer(TokenizerSpec spec);

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
  void EncodeSection(size_t begin, size_t end, Encoding* encoding) const;
  void EncodePart(size_t begin, size_t end, Encoding* encoding) const;
  void EncodeWord(const Word& word, Encoding* encoding) const;

  TokenizerSpec spec_;               // without what the model has taken over
  std::vector<std::string> pieces_;  // by id: the bytes of each token
  std::vector<bool> special_;        // by id
  std::unique_ptr<const TokenizerModel> model_;
  FlatHashMap<absl::string_view, int32_t> added_ids_;
  FlatHashMap<int32_t, const AddedToken*> added_by_id_;
  // The bytes of a token that comes first in a text, where they differ.
  FlatHashMap<int32_t, std::string> first_pieces_;
  std::array<std::unique_ptr<const Matchers>, 2> matchers_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SUBWORD_TOKENIZER_H_
