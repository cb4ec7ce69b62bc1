#ifndef QKSCOPE_TESTS_ENGINE_MODEL_PACKING_OF_H_
#define QKSCOPE_TESTS_ENGINE_MODEL_PACKING_OF_H_

#include "engine/architectures/architecture.h"
#include "tests/engine/model/packed_testing.h"

namespace qk::testing {

// What a configuration says of layers of that format.
inline Packing PackingOf(const Int4Format& format) {
  Packing packing;
  packing.method = format.method == Int4Format::Method::kGptq
                       ? Packing::Method::kGptq
                       : Packing::Method::kAwq;
  packing.bits = 4;
  packing.group_size = static_cast<int>(format.group_size);
  packing.desc_act = format.desc_act;
  packing.v2 = !format.zeros_minus_one;
  return packing;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_MODEL_PACKING_OF_H_
