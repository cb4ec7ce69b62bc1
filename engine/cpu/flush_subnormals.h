// Makes this thread's vector arithmetic read and write subnormal numbers as
// zero, as VDPBF16PS does, for as long as the object lives.
#ifndef QKSCOPE_ENGINE_CPU_FLUSH_SUBNORMALS_H_
#define QKSCOPE_ENGINE_CPU_FLUSH_SUBNORMALS_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace qk::cpu {

class FlushSubnormals {
 public:
  FlushSubnormals() : before_(Get()) { Set(before_ | kFlush); }
  ~FlushSubnormals() { Set(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // of MXCSR: FTZ and DAZ
  static uint64_t Get() { return _mm_getcsr(); }
  static void Set(uint64_t bits) {
    _mm_setcsr(static_cast<unsigned int>(bits));
  }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = 1 << 24;  // of FPCR: FZ
  static uint64_t Get() {
    uint64_t bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
  }
  static void Set(uint64_t bits) { asm volatile("msr fpcr, %0" ::"r"(bits)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t Get() { return 0; }
  static void Set(uint64_t) {}
#endif

  const uint64_t before_;
};

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_FLUSH_SUBNORMALS_H_
