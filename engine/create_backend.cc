#include "engine/create_backend.h"

#include "absl/algorithm/container.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "engine/base/check.h"
#include "engine/cpu/cpu_backend.h"

namespace qk {
namespace {

constexpr absl::string_view kBackends[] = {"cpu"};  // best first
constexpr absl::string_view kNotInThisBuild[] = {"cuda"};

}  // namespace

absl::Status CheckBackendName(absl::string_view name) {
  if (name == "auto" || absl::c_linear_search(kBackends, name)) {
    return absl::OkStatus();
  }
  if (absl::c_linear_search(kNotInThisBuild, name)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "backend: '", name,
        "' is not in this build, which has: ", absl::StrJoin(kBackends, ", ")));
  }
  constexpr size_t kShown = 64;
  return absl::InvalidArgumentError(absl::StrCat(
      "backend: must be one of auto, ", absl::StrJoin(kBackends, ", "), ", ",
      absl::StrJoin(kNotInThisBuild, ", "), "; got '",
      absl::CHexEscape(name.substr(0, kShown)), "'"));
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(
    const BackendOptions& options) {
  QK_RETURN_IF_ERROR(CheckBackendName(options.name));
  CpuBackendOptions cpu;
  cpu.threads = options.threads;
  return CreateCpuBackend(cpu);
}

}  // namespace qk
