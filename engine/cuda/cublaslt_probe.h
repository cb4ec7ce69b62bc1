// Finds out which of cuBLASLt's algorithms gives a row the same bytes whatever
// rows are beside it, and right ones. Neither has been tried on a GPU.
#ifndef QKSCOPE_ENGINE_CUDA_CUBLASLT_PROBE_H_
#define QKSCOPE_ENGINE_CUDA_CUBLASLT_PROBE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cuda/cublaslt.h"
#include "engine/cuda/runtime.h"

namespace qk::cuda {

struct CublasLtVerdict {
  std::optional<CublasLtPlan> plan;  // the first that passed
  // One line for each candidate before it, or why there is none: "algorithm 6,
  // tile 20, stages 8: at 33 rows, 12 of 4224 bytes differ from those at 2048
  // rows, first in row 7".
  std::vector<std::string> refused;
};

// Multiplies pseudo-random rows (the same in every process) by a weight
// (out_features, in), bf16 in device memory, 16-byte aligned, with each
// candidate in turn, until one passes:
//
// - The bytes of a row are the same for each of kCublasLtRows, at each position
//   among them, and from two starts in memory. (What no test of some numbers of
//   rows can show is that they are the same for all others.)
// - Adding the product to itself gives exactly twice the product.
// - Each value is within sqrt(in) * 2^-22 * sum |x| |w| of the one that MatMul
//   (engine/cuda/matmul.h) gives. Float32 sums in any order stay well within
//   that; a k that is left out does not. NaN is never within.
//
// Takes room for 2,085 rows of x, 2,048 of out, and the workspace on the
// device, and for the same rows of x on the host, and gives all of it back.
// Waits. INVALID_ARGUMENT: a shape that CublasLt::Candidates does not take.
// Other errors are the runtime's, or the library's other than UNIMPLEMENTED,
// which only refuses a candidate: that memory is short at one time must not
// lead to another algorithm than at other times.
absl::StatusOr<CublasLtVerdict> ProbeCublasLt(Runtime& runtime,
                                              CublasLt& library, const void* w,
                                              int out_features, int in,
                                              int64_t workspace_bytes,
                                              Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_CUBLASLT_PROBE_H_
