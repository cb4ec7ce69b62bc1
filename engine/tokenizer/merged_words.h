// The words that a text has had already, with the symbols that merges made of
// them: most words of a long text are not new.
#ifndef QKSCOPE_ENGINE_TOKENIZER_MERGED_WORDS_H_
#define QKSCOPE_ENGINE_TOKENIZER_MERGED_WORDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/bpe.h"

namespace qk {

// Keeps a fixed number of short words; a new one takes the place of an old one
// with the same hash. Whether a word is kept changes no result.
class MergedWords {
 public:
  // Sets `symbols` and returns true if the word is kept.
  bool Find(absl::string_view word, std::vector<BpeSymbol>* symbols) const;
  void Keep(absl::string_view word, const std::vector<BpeSymbol>& symbols);

 private:
  static constexpr size_t kSlots = 16384;
  static constexpr size_t kMaxBytes = 23;
  static constexpr size_t kMaxSymbols = 6;
  // A text with fewer words takes no memory here: that takes longer than
  // merging its words again.
  static constexpr size_t kFirstKept = 4096;

  struct Slot {
    uint8_t bytes = 0;  // 0: empty
    std::array<char, kMaxBytes> word;
    std::array<int32_t, kMaxSymbols> ids;
    std::array<uint8_t, kMaxSymbols> ends;
    uint8_t symbols = 0;
  };

  static size_t SlotOf(absl::string_view word);

  size_t words_ = 0;
  std::vector<Slot> slots_;  // empty, or kSlots
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_MERGED_WORDS_H_
