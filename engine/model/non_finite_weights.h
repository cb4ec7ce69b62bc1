// What the check of a model's weights found.
#ifndef QKSCOPE_ENGINE_MODEL_NON_FINITE_WEIGHTS_H_
#define QKSCOPE_ENGINE_MODEL_NON_FINITE_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace qk {

// The weights of a model that are NaN or infinite.
struct NonFiniteWeights {
  int64_t count = 0;
  // The first of them: its tensor's name and its index there, in the file's
  // order. For a packed layer, the name and shape of the weight unpacked.
  std::string tensor;
  std::vector<int64_t> index;
  float value = 0;

  // "5 weights are not finite; the first is 'NAME'[3, 5] = nan"
  std::string Text() const;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_NON_FINITE_WEIGHTS_H_
