// The unigram language model. Each piece has a score, the logarithm of its
// probability; a word becomes the pieces whose scores have the largest sum.
// Kudo 2018, arXiv:1804.10959, section 3.2.
#ifndef QKSCOPE_ENGINE_TOKENIZER_UNIGRAM_MODEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_UNIGRAM_MODEL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/piece_trie.h"
#include "engine/tokenizer/tokenizer_model.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// Bounds the work at each byte of a text.
inline constexpr size_t kMaxPieceBytes = 512;

// As `tokenizers` does it: sums of f64 from left to right, the way that was
// found first where sums are equal, and 10 below the lowest score for a
// character that no piece spells. Such characters next to each other are one
// unknown token.
class UnigramModel : public TokenizerModel {
 public:
  // spec.unigram must be set. `special` says by id which tokens are special;
  // a word never becomes one of those without `with_special`.
  UnigramModel(const TokenizerSpec& spec, const std::vector<bool>& special);

  absl::Status Encode(absl::string_view word, bool with_special,
                      ModelScratch* scratch, Visit visit) const override;

 private:
  // The id of the piece that ends at the trie's node; -1: there is none that
  // counts.
  int32_t PieceAt(uint32_t node, bool with_special) const {
    const int32_t id = trie_.id(node);
    return id >= 0 && !with_special && special_[id] ? -1 : id;
  }
  // Fills paths[end] for every place of the word where a token may end.
  absl::Status FindPaths(absl::string_view word, bool with_special,
                         std::vector<BestPath>* paths) const;
  // Visits what stands for a run [begin, end) of characters that no piece
  // spells.
  void VisitUnknown(absl::string_view word, size_t begin, size_t end,
                    bool with_special, Visit visit) const;

  const std::vector<double> scores_;  // by id
  const std::vector<bool> special_;   // by id
  const std::optional<int32_t> unknown_id_;
  const std::optional<ByteTokens> byte_tokens_;  // -1: the byte has none
  const PieceTrie trie_;
  double unknown_score_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_UNIGRAM_MODEL_H_
