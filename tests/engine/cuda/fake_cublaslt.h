// Controls of a fake libcublasLt, a shared library that tests open in place of
// NVIDIA's. It multiplies host memory by plain loops, and has algorithms with
// the faults that a probe must find. It states NVIDIA's numbers by itself, so
// that a wrong one in engine/cuda/ does not agree with it.
#ifndef QKSCOPE_TESTS_ENGINE_CUDA_FAKE_CUBLASLT_H_
#define QKSCOPE_TESTS_ENGINE_CUDA_FAKE_CUBLASLT_H_

#include <cstdint>

extern "C" {

enum FakeAlgorithm {
  kFakeRight,
  // Their products are wrong.
  kFakeChangesWithRows,      // sums backwards with 16 rows or fewer
  kFakeChangesWithPosition,  // sums the last of several rows backwards
  kFakeChangesWithPlace,     // sums backwards if x is not 256-byte aligned
  kFakeLosesTail,            // leaves out the last k
  kFakeGivesNaN,             // as the first value
  kFakeIgnoresAdd,
  kFakeFailsRun,  // a product of 33 rows is an invalid value
  // They are no candidates.
  kFakeSplitsK,
  kFakeReduces,
  kFakeNoTensorCores,
  kFakeHalfSums,
  kFakeFailsCheck,   // of 7 rows
  kFakeWantsMemory,  // needs a GiB for 512 rows
  kFakeNoResult,     // its entry in the list says so
  kFakeTellsNothing  // of its configuration
};

// The list that a question for an algorithm is answered with, `count` <= 24; at
// first a bad one and a right one.
void FakeCublasLtOffer(const FakeAlgorithm* list, int count);
// From now on a function ("cublasLtMatmul") gives a status and does nothing;
// null: none does.
void FakeCublasLtFail(const char* function, int status);
// How many handles, operations, layouts and preferences there are.
int64_t FakeCublasLtLive();
// How many products it has made so far.
int64_t FakeCublasLtProducts();

}  // extern "C"

#endif  // QKSCOPE_TESTS_ENGINE_CUDA_FAKE_CUBLASLT_H_
