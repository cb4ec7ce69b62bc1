// Creates one of this build's backends. Only create_backend.cc names their
// folders.
#ifndef QKSCOPE_ENGINE_CREATE_BACKEND_H_
#define QKSCOPE_ENGINE_CREATE_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/backend/backend.h"

namespace qk {

struct BackendOptions {
  std::string name = "auto";  // "auto": the best that this machine can run
  int threads = 0;            // for the CPU backend; 0: the number of cores
};

// INVALID_ARGUMENT: no backend has this name, or this build lacks it.
absl::Status CheckBackendName(absl::string_view name);
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(
    const BackendOptions& options);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CREATE_BACKEND_H_
