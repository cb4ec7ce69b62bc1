#include "engine/cuda/nvml.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cuda/dynamic_library.h"
#include "engine/cuda/nvml_functions.h"

namespace qk::cuda {
namespace {

constexpr unsigned kVersionBytes = 80;  // as the reference asks for

absl::Status FindAll(const DynamicLibrary& library, ml::Functions& f) {
#define QK_FIND(name) QK_RETURN_IF_ERROR(library.Find("nvml" #name, &f.name))
  QK_FIND(ErrorString);
  QK_FIND(Init_v2);
  QK_FIND(Shutdown);
  QK_FIND(SystemGetDriverVersion);
  QK_FIND(DeviceGetHandleByUUID);
  QK_FIND(DeviceGetMemoryInfo);
  QK_FIND(DeviceGetUtilizationRates);
  QK_FIND(DeviceGetTemperature);
  QK_FIND(DeviceGetPowerUsage);
#undef QK_FIND
  return absl::OkStatus();
}

}  // namespace

struct Nvml::State {
  explicit State(DynamicLibrary opened) : library(std::move(opened)) {}
  ~State() {
    if (started) f.Shutdown();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::string Words(int error, const char* call) const {
    const char* text = f.ErrorString(error);
    return absl::StrCat(call, ": ", text == nullptr ? "error" : text, " (",
                        error, ")");
  }
  // Whether a call gave a value; if not, the error that is more than a value's
  // absence, if any.
  absl::StatusOr<bool> Has(int error, const char* call) const;

  const DynamicLibrary library;
  ml::Functions f = {};
  bool started = false;
  ml::Device device = nullptr;
};

absl::StatusOr<bool> Nvml::State::Has(int error, const char* call) const {
  switch (error) {
    case ml::kSuccess:
      return true;
    case ml::kNotSupported:
    case ml::kNoPermission:
    case ml::kFunctionNotFound:
    case ml::kDeprecated:
      return false;
    case ml::kGpuIsLost:
      return absl::UnavailableError(Words(error, call));
    default:
      return absl::InternalError(Words(error, call));
  }
}

Nvml::Nvml(std::unique_ptr<State> state) : state_(std::move(state)) {}
Nvml::~Nvml() = default;

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& uuid,
                                                 const std::string& path) {
  if (absl::StartsWith(uuid, "MIG-")) {
    return absl::NotFoundError(
        absl::StrCat("\"", uuid,
                     "\" is a part of a GPU (MIG); NVML has readings of whole "
                     "GPUs only"));
  }
  QK_ASSIGN_OR_RETURN(
      DynamicLibrary library,
      DynamicLibrary::Open({path.empty() ? "libnvidia-ml.so.1" : path}));
  auto state = std::make_unique<State>(std::move(library));
  QK_RETURN_IF_ERROR(FindAll(state->library, state->f));
  int error = state->f.Init_v2();
  if (error != ml::kSuccess) {
    return absl::UnavailableError(state->Words(error, "nvmlInit"));
  }
  state->started = true;
  error = state->f.DeviceGetHandleByUUID(uuid.c_str(), &state->device);
  if (error == ml::kNotFound || error == ml::kGpuNotFound ||
      error == ml::kInvalidArgument) {
    return absl::NotFoundError(absl::StrCat(
        "NVML knows no GPU \"", uuid,
        "\" (a part of a GPU, MIG, has a UUID that is not a GPU's): ",
        state->Words(error, "nvmlDeviceGetHandleByUUID")));
  }
  if (error != ml::kSuccess) {
    return absl::UnavailableError(
        state->Words(error, "nvmlDeviceGetHandleByUUID"));
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(state)));
}

absl::StatusOr<DeviceReading> Nvml::Read() const {
  const ml::Functions& f = state_->f;
  const ml::Device device = state_->device;
  DeviceReading reading;

  ml::Memory memory = {};
  QK_ASSIGN_OR_RETURN(bool has,
                      state_->Has(f.DeviceGetMemoryInfo(device, &memory),
                                  "nvmlDeviceGetMemoryInfo"));
  if (has) {
    reading.memory_used_bytes = static_cast<int64_t>(memory.used);
    reading.memory_total_bytes = static_cast<int64_t>(memory.total);
  }
  ml::Utilization utilization = {};
  QK_ASSIGN_OR_RETURN(
      has, state_->Has(f.DeviceGetUtilizationRates(device, &utilization),
                       "nvmlDeviceGetUtilizationRates"));
  if (has) reading.utilization = utilization.gpu / 100.0;

  unsigned number = 0;
  QK_ASSIGN_OR_RETURN(
      has, state_->Has(f.DeviceGetTemperature(device, ml::kGpuSensor, &number),
                       "nvmlDeviceGetTemperature"));
  if (has) reading.temperature_celsius = number;
  QK_ASSIGN_OR_RETURN(has, state_->Has(f.DeviceGetPowerUsage(device, &number),
                                       "nvmlDeviceGetPowerUsage"));
  if (has) reading.power_watts = number / 1000.0;

  char version[kVersionBytes] = {};
  QK_ASSIGN_OR_RETURN(
      has, state_->Has(f.SystemGetDriverVersion(version, kVersionBytes),
                       "nvmlSystemGetDriverVersion"));
  version[kVersionBytes - 1] = '\0';
  if (has) reading.driver_version = version;
  return reading;
}

}  // namespace qk::cuda
