// Byte pair encoding merges the neighbouring pair with the lowest rank, the
// leftmost first, until no pair has a rank. Sennrich et al. 2016,
// arXiv:1508.07909.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BPE_H_
#define QKSCOPE_ENGINE_TOKENIZER_BPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/base/flat_hash.h"

namespace qk {

// The pair (left, right) becomes `result`. Pairs of equal rank merge from left
// to right.
struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t result;
  uint32_t rank;
};

class BpeMergeTable {
 public:
  struct Target {
    uint32_t rank;
    int32_t id;
  };

  // If a pair has two merges, the later one counts.
  explicit BpeMergeTable(absl::Span<const BpeMerge> merges);

  // Returns nullptr if the pair does not merge.
  const Target* Find(int32_t left, int32_t right) const {
    const auto found = targets_.find(Key(left, right));
    return found == targets_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 |
           static_cast<uint32_t>(right);
  }

  FlatHashMap<uint64_t, Target> targets_;
};

// A symbol of a word: bytes [begin, end), merged so far.
struct BpeSymbol {
  int32_t id;
  uint32_t begin;
  uint32_t end;
};

// Merges a word's symbols in place. Fewer than 2^31 symbols.
void BpeMergeSymbols(const BpeMergeTable& table,
                     std::vector<BpeSymbol>* symbols);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BPE_H_
