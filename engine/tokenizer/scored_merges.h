// Merges of a SentencePiece vocabulary, which lists none: any two neighbours
// that make a token merge, the token with the highest score first and, at equal
// scores, the leftmost.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SCORED_MERGES_H_
#define QKSCOPE_ENGINE_TOKENIZER_SCORED_MERGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/bpe.h"

namespace qk {

struct ScoredMerges {
  std::vector<BpeMerge> merges;
  // Characters that are part of a token but not a token themselves: their ids
  // count from tokens.size() on.
  FlatHashMap<char32_t, int32_t> char_ids;
};

// `tokens` must be valid UTF-8, `scores` finite; `usable` says whether text may
// become the token. All are indexed by id. It is an error (a message without a
// place, for the caller to wrap) if tokens are too long or too many.
absl::StatusOr<ScoredMerges> MergesOfScores(
    const std::vector<std::string>& tokens, const std::vector<float>& scores,
    const std::vector<bool>& usable);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SCORED_MERGES_H_
