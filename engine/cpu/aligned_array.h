// Memory for the kernels' scratch and weights, aligned for any vector size.
#ifndef QKSCOPE_ENGINE_CPU_ALIGNED_ARRAY_H_
#define QKSCOPE_ENGINE_CPU_ALIGNED_ARRAY_H_

#include <cstddef>
#include <new>

#include "hwy/aligned_allocator.h"

namespace qk::cpu {

template <typename T>
using AlignedArray = hwy::AlignedFreeUniquePtr<T[]>;

// Allocates through operator new, so that a failure throws std::bad_alloc like
// every other allocation. hwy::AllocateAligned alone would return nullptr.
template <typename T>
AlignedArray<T> AllocateAligned(size_t n) {
  // hwy may be built without exceptions, so none may pass through it.
  const auto allocate = [](void*, size_t bytes) -> void* {
    try {
      return ::operator new(bytes);
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  };
  const auto free = [](void*, void* memory) { ::operator delete(memory); };
  auto array = hwy::AllocateAligned<T>(n, allocate, free, nullptr);
  if (array == nullptr) throw std::bad_alloc();
  return array;
}

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_ALIGNED_ARRAY_H_
