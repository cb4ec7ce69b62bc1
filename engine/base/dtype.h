// The types in which model files store numbers. engine/formats/quant_blocks.h
// has their bytes.
#ifndef QKSCOPE_ENGINE_BASE_DTYPE_H_
#define QKSCOPE_ENGINE_BASE_DTYPE_H_

namespace qk {

enum class DType {
  kF32,
  kF16,
  kBF16,
  kI32,  // packed words and indices, not weights
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_DTYPE_H_
