#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/cuda/runtime.h"

namespace qk::cuda {
namespace {

constexpr int kOutOfMemory = 2;  // cudaErrorMemoryAllocation

// Errors after which every call of the process fails (CUDA's reference says
// "the process must be terminated and relaunched"), or the device is gone.
constexpr int kLost[] = {
    4,    // cudaErrorCudartUnloading
    46,   // cudaErrorDevicesUnavailable
    214,  // cudaErrorECCUncorrectable
    220,  // cudaErrorNvlinkUncorrectable
    226,  // cudaErrorContained
    700,  // cudaErrorIllegalAddress
    702,  // cudaErrorLaunchTimeout
    709,  // cudaErrorContextIsDestroyed
    710,  // cudaErrorAssert
    714,  // cudaErrorHardwareStackError
    715,  // cudaErrorIllegalInstruction
    716,  // cudaErrorMisalignedAddress
    717,  // cudaErrorInvalidAddressSpace
    718,  // cudaErrorInvalidPc
    719,  // cudaErrorLaunchFailure
    721,  // cudaErrorTensorMemoryLeak
    802,  // cudaErrorSystemNotReady
    999,  // cudaErrorUnknown
};

}  // namespace

absl::Status StatusOf(int error, const std::string& call,
                      const std::string& words) {
  if (error == 0) return absl::OkStatus();
  const std::string message =
      absl::StrCat(call, ": ", words, " (CUDA error ", error, ")");
  if (error == kOutOfMemory) return absl::ResourceExhaustedError(message);
  if (std::find(std::begin(kLost), std::end(kLost), error) != std::end(kLost)) {
    return absl::UnavailableError(message);
  }
  return absl::InternalError(message);
}

bool IsLost(const absl::Status& status) { return absl::IsUnavailable(status); }

}  // namespace qk::cuda
