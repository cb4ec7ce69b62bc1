// The type of a model's weights, of its KV cache and of its products.
#ifndef QKSCOPE_ENGINE_TYPES_COMPUTE_TYPE_H_
#define QKSCOPE_ENGINE_TYPES_COMPUTE_TYPE_H_

namespace qk {

enum class ComputeType { kF32, kBF16 };
inline int BytesOf(ComputeType type) {
  return type == ComputeType::kF32 ? 4 : 2;
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_COMPUTE_TYPE_H_
