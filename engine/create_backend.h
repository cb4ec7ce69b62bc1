// The backends of this build. create_backend.cc is the one place that names
// their folders.
#ifndef QKSCOPE_ENGINE_CREATE_BACKEND_H_
#define QKSCOPE_ENGINE_CREATE_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace qk {

struct BackendOptions {
  std::string name = "auto";  // "auto": the best that this machine has
  int threads = 0;            // of the CPU's; 0: the number of cores
};

// INVALID_ARGUMENT: there is no such backend in this build.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(
    const BackendOptions& options);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CREATE_BACKEND_H_
