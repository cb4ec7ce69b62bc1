// Scratch memory and weights of the kernels, aligned for any vector size.
#ifndef QKSCOPE_ENGINE_CPU_ALIGNED_ARRAY_H_
#define QKSCOPE_ENGINE_CPU_ALIGNED_ARRAY_H_

#include <cstddef>
#include <new>

#include "hwy/aligned_allocator.h"

namespace qk::cpu {

template <typename T>
using AlignedArray = hwy::AlignedFreeUniquePtr<T[]>;

// hwy::AllocateAligned on operator new, so that it fails as every other
// allocation does: with std::bad_alloc. hwy's own answer is nullptr.
template <typename T>
AlignedArray<T> AllocateAligned(size_t n) {
  // hwy may be built without exceptions: none passes through it.
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
