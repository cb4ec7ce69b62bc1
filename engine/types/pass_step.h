// Where one sequence, or one of its images, stands in a pass.
#ifndef QKSCOPE_ENGINE_TYPES_PASS_STEP_H_
#define QKSCOPE_ENGINE_TYPES_PASS_STEP_H_

#include "engine/types/spec.h"

namespace qk {

struct PassStep {
  Phase phase = Phase::kPrefill;
  int step = -1;           // decode step, from 0; -1 in prefill
  int first_position = 0;  // absolute, of the sequence's first row
  int rows = 0;
  // The rows are this image's patches, in the vision tower; -1: the text's.
  int image = -1;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_PASS_STEP_H_
