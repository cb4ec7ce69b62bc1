// The tensors that a file must have for an architecture.
#ifndef QKSCOPE_TESTS_ENGINE_ARCHITECTURES_ARCHITECTURES_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_ARCHITECTURES_ARCHITECTURES_TESTING_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/architectures/architecture.h"
#include "gtest/gtest.h"

namespace qk::testing {

inline int64_t Elements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements;
}

// A file's tensors, as far as an architecture's names and shapes define them.
using Tensors = std::map<std::string, std::vector<int64_t>>;

inline Tensors FileTensors(Architecture architecture) {
  Tensors tensors;
  for (const WeightRef* ref : AllWeights(&architecture)) {
    std::vector<int64_t> shape = ref->shape;
    if (ref->fused_rows > 0) shape[0] = ref->fused_rows;
    if (ref->transposed) std::swap(shape[0], shape[1]);
    const auto [at, is_new] = tensors.emplace(ref->name, shape);
    EXPECT_EQ(at->second, shape) << ref->name;
    if (!is_new) {
      EXPECT_TRUE(ref->fused_rows > 0 || architecture.config.tied_lm_head)
          << ref->name;
    }
  }
  return tensors;
}

inline int64_t Parameters(const Architecture& architecture) {
  int64_t parameters = 0;
  for (const auto& [name, shape] : FileTensors(architecture)) {
    parameters += Elements(shape);
  }
  return parameters;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_ARCHITECTURES_ARCHITECTURES_TESTING_H_
