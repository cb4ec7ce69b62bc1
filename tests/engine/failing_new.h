// An operator new that fails once, at the n-th call while it is armed. One file
// of a test binary includes this header.
#ifndef QKSCOPE_TESTS_ENGINE_FAILING_NEW_H_
#define QKSCOPE_TESTS_ENGINE_FAILING_NEW_H_

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace qk::testing {

// This covers all threads of the process.
struct FailingNew {
  static inline std::atomic<bool> armed{false};
  static inline std::atomic<int64_t> calls{0};    // while armed
  static inline std::atomic<int64_t> fail_at{0};  // 0: never
  static inline std::atomic<int64_t> live{0};     // allocated and not freed

  static void Arm(int64_t n) {
    calls = 0;
    fail_at = n;
    armed = true;
  }
  // Returns the number of calls so far.
  static int64_t Disarm() {
    armed = false;
    return calls;
  }
  static void* Allocate(size_t size, size_t alignment) {
    if (armed && ++calls == fail_at) return nullptr;
    const size_t rounded = (size + alignment - 1) / alignment * alignment;
    void* data = alignment <= alignof(std::max_align_t)
                     ? std::malloc(size == 0 ? 1 : size)
                     : std::aligned_alloc(alignment, rounded);
    if (data != nullptr) ++live;
    return data;
  }
  static void* AllocateOrThrow(size_t size, size_t alignment) {
    void* data = Allocate(size, alignment);
    if (data == nullptr) throw std::bad_alloc();
    return data;
  }
  static void Free(void* data) noexcept {
    if (data == nullptr) return;
    --live;
    std::free(data);
  }
};

}  // namespace qk::testing

// If inlined, the compiler would see memory of new go to free().
#define QK_OUT_OF_LINE __attribute__((noinline))

QK_OUT_OF_LINE void* operator new(size_t size) {
  return qk::testing::FailingNew::AllocateOrThrow(size,
                                                  alignof(std::max_align_t));
}
QK_OUT_OF_LINE void* operator new(size_t size, std::align_val_t alignment) {
  return qk::testing::FailingNew::AllocateOrThrow(
      size, static_cast<size_t>(alignment));
}
// These do not fail, because their callers have another way.
QK_OUT_OF_LINE void* operator new(size_t size, const std::nothrow_t&) noexcept {
  void* data = std::malloc(size == 0 ? 1 : size);
  if (data != nullptr) ++qk::testing::FailingNew::live;
  return data;
}
QK_OUT_OF_LINE void operator delete(void* data) noexcept {
  qk::testing::FailingNew::Free(data);
}
QK_OUT_OF_LINE void operator delete(void* data, size_t) noexcept {
  qk::testing::FailingNew::Free(data);
}
QK_OUT_OF_LINE void operator delete(void* data, std::align_val_t) noexcept {
  qk::testing::FailingNew::Free(data);
}
QK_OUT_OF_LINE void operator delete(void* data, size_t,
                                    std::align_val_t) noexcept {
  qk::testing::FailingNew::Free(data);
}
QK_OUT_OF_LINE void operator delete(void* data,
                                    const std::nothrow_t&) noexcept {
  qk::testing::FailingNew::Free(data);
}

#endif  // QKSCOPE_TESTS_ENGINE_FAILING_NEW_H_
