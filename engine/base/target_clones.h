// QK_TARGET_CLONES("avx2", "default") before a function compiles it once for
// each of these instruction sets; the processor's is chosen at load. With
// -ffp-contract=off there is no fused multiply-add in any, so all give the same
// bits. Elsewhere than on x86-64, and under ThreadSanitizer, which knows no
// such choice, the function is an ordinary one.
#ifndef QKSCOPE_ENGINE_BASE_TARGET_CLONES_H_
#define QKSCOPE_ENGINE_BASE_TARGET_CLONES_H_

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define QK_TARGET_CLONES(...) __attribute__((target_clones(__VA_ARGS__)))
#else
#define QK_TARGET_CLONES(...)
#endif

#endif  // QKSCOPE_ENGINE_BASE_TARGET_CLONES_H_
