// Extended grapheme clusters, what people take for one character (UAX #29), in
// the Unicode version that `tokenizers` has.
#ifndef QKSCOPE_ENGINE_TOKENIZER_GRAPHEMES_H_
#define QKSCOPE_ENGINE_TOKENIZER_GRAPHEMES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace qk {

enum class GraphemeClass : uint8_t {
  kOther,
  kCr,
  kLf,
  kControl,
  kExtend,
  kZwj,
  kSpacingMark,
  kPrepend,
  kRegional,
  kL,
  kV,
  kT,
  kPictograph,
  kConsonant,    // of a script whose consonants a linker joins
  kLinker,       // extends, too
  kOtherExtend,  // extends, but ends a sequence that a linker would join
  // Hangul syllables, which are not in the table.
  kLv,
  kLvt,
};

// Each entry is (first code point << 8 | class); it holds up to the next one.
inline constexpr size_t kNumGraphemeRanges = 1373;
extern const std::array<uint32_t, kNumGraphemeRanges> kGraphemeRanges;

// Returns the end of the cluster that starts at `begin` < text.size(). The text
// must be valid UTF-8.
size_t GraphemeEnd(absl::string_view text, size_t begin);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_GRAPHEMES_H_
