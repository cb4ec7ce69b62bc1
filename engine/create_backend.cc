#include "engine/create_backend.h"

#include "absl/strings/str_cat.h"
#include "engine/cpu/cpu_backend.h"

namespace qk {

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(
    const BackendOptions& options) {
  if (options.name == "cpu" || options.name == "auto") {
    CpuBackendOptions cpu;
    cpu.threads = options.threads;
    return CreateCpuBackend(cpu);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("backend: this build has cpu, and auto chooses among them; "
                   "got '",
                   options.name, "'"));
}

}  // namespace qk
