#ifndef QKSCOPE_TESTS_ENGINE_FORMATS_WEIGHT_TYPES_H_
#define QKSCOPE_TESTS_ENGINE_FORMATS_WEIGHT_TYPES_H_

#include "engine/base/dtype.h"

namespace qk::testing {

// All types in which files store weights.
inline constexpr DType kWeightTypes[] = {
    DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
    DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
    DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
    DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORMATS_WEIGHT_TYPES_H_
