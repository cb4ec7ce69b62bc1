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
  // The image in the vision tower whose patches the rows are; -1: the rows are
  // the text's.
  int image = -1;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_ROW_SPAN_H_
