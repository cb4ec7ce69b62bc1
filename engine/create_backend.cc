#include "engine/create_backend.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "engine/base/check.h"
#include "engine/cpu/cpu_backend.h"
#ifdef QK_HAS_CUDA
#include "engine/cuda/cuda_backend.h"
#endif

namespace qk {
namespace {

constexpr absl::string_view kCuda = "cuda", kCpu = "cpu";
constexpr size_t kShown = 64;  // bytes of a bad name
#ifdef QK_HAS_CUDA
constexpr absl::string_view kBackends[] = {kCuda, kCpu};  // best first
constexpr absl::Span<const absl::string_view> kNotInThisBuild;
#else
constexpr absl::string_view kBackends[] = {kCpu};
constexpr absl::string_view kNotInThisBuild[] = {kCuda};
#endif

absl::StatusOr<std::unique_ptr<Backend>> Create(absl::string_view name,
                                                const BackendOptions& options) {
#ifdef QK_HAS_CUDA
  if (name == kCuda) {
    CudaLibraries libraries;
    if (options.matmul == "auto") libraries.matmul = MatMulLibrary::kAuto;
    if (options.matmul == "cublaslt") {
      libraries.matmul = MatMulLibrary::kCublasLt;
    }
    return CreateCudaBackend({.device = options.device,
                              .memory_bytes = options.device_memory_bytes,
                              .memory_part = options.device_memory_part,
                              .libraries = libraries,
                              .threads = options.threads});
  }
#endif
  QK_CHECK(name == kCpu);
  CpuBackendOptions cpu;
  cpu.threads = options.threads;
  return CreateCpuBackend(cpu);
}

// Puts the backend before what went wrong with it.
absl::Status Named(absl::string_view name, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(name, ": ", status.message()));
}

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
  return absl::InvalidArgumentError(
      absl::StrCat("backend: must be one of auto, ", kCpu, ", ", kCuda,
                   "; got '", absl::CHexEscape(name.substr(0, kShown)), "'"));
}

absl::Status CheckMatMulName(absl::string_view name) {
  if (name == "own" || name == "cublaslt" || name == "auto") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("matmul: must be one of own, cublaslt, auto; got '",
                   absl::CHexEscape(name.substr(0, kShown)), "'"));
}

absl::StatusOr<CreatedBackend> CreateBackend(const BackendOptions& options) {
  QK_RETURN_IF_ERROR(CheckBackendName(options.name));
  QK_RETURN_IF_ERROR(CheckMatMulName(options.matmul));
  CreatedBackend created;
  for (absl::string_view name : kBackends) {
    const bool chosen = options.name == name;
    if (!chosen && options.name != "auto") continue;
    absl::StatusOr<std::unique_ptr<Backend>> backend = Create(name, options);
    if (backend.ok()) {
      created.backend = *std::move(backend);
      break;
    }
    const absl::Status status = Named(name, backend.status());
    if (chosen || !absl::IsUnavailable(status)) return status;
    created.passed_over = std::string(status.message());
  }
  return created;
}

}  // namespace qk
