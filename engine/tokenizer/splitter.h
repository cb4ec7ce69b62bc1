// One step of a pre-tokenizer: cuts a text into pieces.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SPLITTER_H_
#define QKSCOPE_ENGINE_TOKENIZER_SPLITTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/word_pattern.h"

namespace qk {

// What becomes of a pattern's matches, as `tokenizers` names it.
enum class SplitBehavior {
  kIsolated,            // each match is a piece
  kRemoved,             // matches are dropped
  kMergedWithPrevious,  // a match ends the piece before it
  kMergedWithNext,      // a match begins the piece after it
  kContiguous,          // neighbouring matches are one piece
};

// A hand-written scanner (splitters.h) or a pattern that PCRE2 runs. Cheap to
// copy.
class Splitter {
 public:
  // Returns the end of the piece that starts at `begin` < text.size(). The text
  // must be valid UTF-8; begins and ends lie between characters.
  using Scanner = size_t (*)(absl::string_view text, size_t begin);

  Splitter(Scanner scanner) : scanner_(scanner) {}  // NOLINT: a plain wrapper
  // Drops the pieces whose first character is of one of the classes
  // (unicode.h).
  Splitter(Scanner scanner, uint8_t dropped)
      : scanner_(scanner), dropped_(dropped) {}
  // `invert`: the text between matches counts as the matches.
  Splitter(std::shared_ptr<const WordPattern> pattern, SplitBehavior behavior,
           bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  // Calls `visit` for the pieces of `text` in order, none of them empty.
  // INVALID_ARGUMENT: WordPattern::ForEachMatch's.
  absl::Status ForEachPiece(
      absl::string_view text, PatternScratch* scratch,
      absl::FunctionRef<void(size_t begin, size_t end)> visit) const;

  // Whether PCRE2 does the work.
  bool runs_pattern() const { return pattern_ != nullptr; }

 private:
  Scanner scanner_ = nullptr;
  uint8_t dropped_ = 0;
  std::shared_ptr<const WordPattern> pattern_;
  SplitBehavior behavior_ = SplitBehavior::kIsolated;
  bool invert_ = false;
};

// A known pattern's scanner, or else the pattern run by PCRE2; each match is a
// piece, and so is the text between two matches. Errors are WordPattern's.
absl::StatusOr<Splitter> SplitterOfPattern(absl::string_view pattern);

// The scanner of a known pattern that matches every character; nullptr: the
// pattern is not one of them.
Splitter::Scanner ScannerOfPattern(absl::string_view pattern);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SPLITTER_H_
