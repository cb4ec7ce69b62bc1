// The rows that one sequence, or one of its images, has in a pass.
#ifndef QKSCOPE_ENGINE_TYPES_ROW_SPAN_H_
#define QKSCOPE_ENGINE_TYPES_ROW_SPAN_H_

#include "engine/types/spec.h"

namespace qk {

struct RowSpan {
  Phase phase = Phase::kPrefill;
  int step = -1;           // decode step, from 0; -1 in prefill
  int first_position = 0;  // absolute, of the first of these rows
  int rows = 0;
  // The length of the sequence up to the last of these rows, as RoPE's scaling
  // counts it (RopeConfig::FrequenciesFor).
  int rope_length = 0;
  // The sequence has had these rows before, with other frequencies of RoPE.
  // Nothing of them is captured, reported or turned into logits.
  bool recomputed = false;
  // The image in the vision tower whose patches the rows are; -1: the rows are
  // the text's.
  int image = -1;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_ROW_SPAN_H_
