// Unicode normalisation that knows where every character came from.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

enum class Normalization { kNone, kNfc };

// A text and the way back to the one it was made from.
class NormalizedText {
 public:
  absl::string_view text() const { return changed_ ? text_ : original_; }

  // The bytes of the original that bytes [begin, end) of text() came from. For
  // characters that were composed or reordered: all that took part.
  std::pair<size_t, size_t> ToOriginal(size_t begin, size_t end) const;

 private:
  friend NormalizedText Normalize(Normalization normalization,
                                  absl::string_view text);
  friend class NfcWriter;

  // Bytes of text_ from `begin` to the next span's: copied from
  // `original_begin` on byte for byte, or made from [original_begin,
  // original_end) as a whole.
  struct Span {
    size_t begin;
    size_t original_begin;
    size_t original_end;
    bool copied;
  };

  absl::string_view original_;
  bool changed_ = false;
  std::string text_;
  std::vector<Span> spans_;
};

// `text`: valid UTF-8; must outlive the result.
NormalizedText Normalize(Normalization normalization, absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
