// Looks for NaN and infinities in weights while they are loaded.
#ifndef QKSCOPE_ENGINE_MODEL_WEIGHT_SCAN_H_
#define QKSCOPE_ENGINE_MODEL_WEIGHT_SCAN_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "engine/model/non_finite_weights.h"
#include "engine/model/weight_reader.h"

namespace qk {

// Thread-safe.
class WeightScan {
 public:
  // Whether the weight's rows have not been looked at before. A tied weight is
  // loaded twice, and is to be counted once.
  bool Begin(const WeightRef& ref) ABSL_LOCKS_EXCLUDED(mutex_);
  // Looks at rows (end - begin, width) that `reader` has read.
  void Look(const WeightReader& reader, int64_t begin, int64_t end,
            const float* rows) ABSL_LOCKS_EXCLUDED(mutex_);

  NonFiniteWeights found() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Count(const WeightReader& reader, int64_t begin, int64_t end,
             const float* rows) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable Mutex mutex_;
  // (name, first row) of what has been looked at.
  std::set<std::pair<std::string, int64_t>> seen_ ABSL_GUARDED_BY(mutex_);
  NonFiniteWeights found_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_WEIGHT_SCAN_H_
