// What a backend runs on, and with which kernels. The manifest holds this.
#ifndef QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_
#define QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qk {

struct BackendInfo {
  std::string name;    // "cpu"
  std::string device;  // the processor's name
  int threads = 0;
  // What it may take of memory of its own; 0: it works in the host's.
  int64_t memory_bytes = 0;
  // Everything on which a result's bits may depend, beside the model and the
  // request.
  std::vector<std::string> kernel_ids;
  std::map<std::string, std::string> library_versions;
};

// What multiplies a matrix.
struct MatMulChoice {
  std::string kernel;  // e.g. "own-AVX2", "cublaslt-13.1.0"
  // Why cuBLASLt, which was asked first, does not; empty if it was not asked.
  std::string passed_over;

  bool operator==(const MatMulChoice&) const = default;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_
