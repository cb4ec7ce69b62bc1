// Matrix products of bf16 tensors by NVIDIA's cuBLASLt, which is opened when
// the program runs. It has run on no GPU yet: its numbers are those of NVIDIA's
// reference, and tests stand a fake library in for it.
//
// By itself, the library chooses an algorithm for each number of rows, and a
// row's bytes change with the rows beside it. Here one algorithm is chosen for
// a weight's shape and kept for all numbers of rows. Whether that gives a row
// the same bytes is found out by engine/cuda/cublaslt_probe.h.
#ifndef QKSCOPE_ENGINE_CUDA_CUBLASLT_H_
#define QKSCOPE_ENGINE_CUDA_CUBLASLT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/cuda/stream.h"

namespace qk::cuda {

// Numbers of rows that an algorithm is checked for; the first is the one that
// it is chosen for.
inline constexpr int kCublasLtRows[] = {2048, 1, 2, 7, 16, 33, 64, 100, 512};

// An algorithm for every product with a weight of a shape. Plain data, which is
// good for the library's version and the kind of GPU that it was made with.
struct CublasLtPlan {
  int out_features = 0, in = 0;
  std::array<uint64_t, 8> algorithm = {};  // as the library codes it
  int64_t workspace_bytes = 0;             // the most that kCublasLtRows need
  std::string name;                        // "algorithm 66, tile 20, stages 36"
};

// For the device that the thread uses (Runtime::Use), from Open on. Not for two
// threads at once. Statuses: RESOURCE_EXHAUSTED if the library
// finds no memory; UNIMPLEMENTED if it says that an algorithm cannot do a
// product; INTERNAL for any other error of the library (if the device is lost,
// the next call of the Runtime says so).
class CublasLt {
 public:
  // `path`: the library's file; "" for libcublasLt.so.13, .so.12 or .so, from
  // where the system looks for libraries. UNAVAILABLE: there is none, it lacks
  // a function, or it does not start; the message says which.
  static absl::StatusOr<std::unique_ptr<CublasLt>> Open(
      const std::string& path = "");
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  const std::string& version() const;  // "13.1.0"

  // The algorithms for a weight (out_features, in) that could give a row the
  // same bytes among any rows, the one first that the library thinks is the
  // fastest for 2,048 rows: K is not split, sums are float32 by tensor cores
  // (so none of the kernels for a single vector is among them), and the library
  // takes them for each of kCublasLtRows within the workspace. There may be
  // none. INVALID_ARGUMENT: `in` is no multiple of 8, or out_features none of
  // 4, so that not all rows are 16-byte aligned.
  absl::StatusOr<std::vector<CublasLtPlan>> Candidates(int out_features, int in,
                                                       int64_t workspace_bytes);

  // out (rows, out_features) = x (rows, in) w (out_features, in)^T, or, with
  // `add`, out += that; x and w bf16, out and sums float32. All are device
  // memory without gaps, 16-byte aligned; out overlaps neither x nor w. The
  // workspace (device memory, 256-byte aligned, of as many bytes as Candidates
  // had or more; null if that is 0) is used until the stream has done the
  // product. There is no bias: the caller adds it.
  absl::Status Multiply(const CublasLtPlan& plan, const void* x, int rows,
                        const void* w, bool add, float* out, void* workspace,
                        int64_t workspace_bytes, Stream stream);

 private:
  struct State;
  explicit CublasLt(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_CUBLASLT_H_
