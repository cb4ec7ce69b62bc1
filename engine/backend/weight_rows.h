// Where the values of a weight (out, in) come from when it is loaded. Any
// backend can have them as float32. A device that converts by itself can have
// the file's own bytes instead, which are fewer; the values are the same bit
// for bit, but for a NaN's payload. Functions are called from several threads
// at once, and only before the op that was given them returns.
#ifndef QKSCOPE_ENGINE_BACKEND_WEIGHT_ROWS_H_
#define QKSCOPE_ENGINE_BACKEND_WEIGHT_ROWS_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/types/span.h"
#include "engine/base/dtype.h"
#include "engine/types/spec.h"

namespace qk {

// Writes rows [begin, end) of a weight, float32 (end - begin, in), to `out`.
using RowReader = std::function<void(int64_t begin, int64_t end, float* out)>;

// Rows that the file has whole, in blocks of one type.
struct BlockRows {
  DType type = DType::kF32;
  int64_t row_bytes = 0;  // of whole blocks
  // Writes rows [begin, end), row_bytes each, one after another.
  std::function<void(int64_t begin, int64_t end, uint8_t* out)> copy;
};

// 4-bit integers q, eight in a 32-bit word, in groups of inputs that share a
// zero and a scale. With g the group of input i,
//   w[o, i] = (q[o, i] - zero[g, o]) * scale[g, o]
// `out` is a multiple of 8, and so is either end of each range of outputs.
struct Int4Rows {
  // Whether a word has eight inputs of one output, in order: words (in / 8,
  // out). If not, it has eight outputs of one input: words (in, out / 8), where
  // output 8 c + i is nibble {0, 4, 1, 5, 2, 6, 3, 7}[i] of word c.
  bool words_of_inputs = false;
  int64_t groups = 0;
  int64_t group_size = 0;  // inputs
  // (in): the group of each input. Empty: that of input i is i / group_size.
  absl::Span<const int32_t> group_of;
  // Writes the words of some outputs in rows [rows.begin, rows.end) of the
  // table of words: (rows.size(), outputs.size()), or an eighth of that.
  std::function<void(Range outputs, Range rows, uint32_t* out)> copy_words;
  // Writes the zeros, from 0 to 16, and scales of some outputs in some groups,
  // (groups.size(), outputs.size()) each.
  std::function<void(Range outputs, Range groups, uint8_t* zeros,
                     float* scales)>
      read_groups;
};

struct WeightRows {
  RowReader floats;
  // How the file stores them, if a device can use that: at most one of these.
  std::optional<BlockRows> blocks = std::nullopt;
  std::optional<Int4Rows> int4 = std::nullopt;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_WEIGHT_ROWS_H_
