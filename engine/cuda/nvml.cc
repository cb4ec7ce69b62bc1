#include "engine/cuda/nvml.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cuda/dynamic_library.h"

namespace qk::cuda {
namespace {

// The part of NVML that is called, in our words after NVIDIA's reference.
using Device = struct DeviceStruct*;     // nvmlDevice_t
struct Memory {                          // nvmlMemory_t
  unsigned long long total, free, used;  // bytes
};
struct Utilization {     // nvmlUtilization_t
  unsigned gpu, memory;  // percent
};
// nvmlReturn_t
constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3,
              kNoPermission = 4, kNotFound = 6, kFunctionNotFound = 13,
              kGpuIsLost = 15;
constexpr int kGpuSensor = 0;  // nvmlTemperatureSensors_t: of the die
constexpr unsigned kVersionBytes = 80;

// They return an nvmlReturn_t unless they say otherwise.
struct Functions {
  const char* (*error_string)(int);
  int (*init)();
  int (*shutdown)();
  int (*driver_version)(char* text, unsigned bytes);
  int (*handle_by_uuid)(const char* uuid, Device*);
  int (*memory_info)(Device, Memory*);
  int (*utilization_rates)(Device, Utilization*);
  int (*temperature)(Device, int sensor, unsigned* celsius);
  int (*power_usage)(Device, unsigned* milliwatts);
};

absl::Status FindAll(const DynamicLibrary& library, Functions& f) {
  QK_RETURN_IF_ERROR(library.Find("nvmlErrorString", &f.error_string));
  QK_RETURN_IF_ERROR(library.Find("nvmlInit_v2", &f.init));
  QK_RETURN_IF_ERROR(library.Find("nvmlShutdown", &f.shutdown));
  QK_RETURN_IF_ERROR(
      library.Find("nvmlSystemGetDriverVersion", &f.driver_version));
  QK_RETURN_IF_ERROR(
      library.Find("nvmlDeviceGetHandleByUUID", &f.handle_by_uuid));
  QK_RETURN_IF_ERROR(library.Find("nvmlDeviceGetMemoryInfo", &f.memory_info));
  QK_RETURN_IF_ERROR(
      library.Find("nvmlDeviceGetUtilizationRates", &f.utilization_rates));
  QK_RETURN_IF_ERROR(library.Find("nvmlDeviceGetTemperature", &f.temperature));
  return library.Find("nvmlDeviceGetPowerUsage", &f.power_usage);
}

}  // namespace

struct Nvml::State {
  explicit State(DynamicLibrary opened) : library(std::move(opened)) {}
  ~State() {
    if (started) f.shutdown();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::string Words(int error, const char* call) const {
    const char* text = f.error_string(error);
    return absl::StrCat(call, ": ", text == nullptr ? "error" : text, " (",
                        error, ")");
  }
  // Whether a call gave a value; if not, the error that is more than a value's
  // absence, if any.
  absl::StatusOr<bool> Has(int error, const char* call) const;

  const DynamicLibrary library;
  Functions f = {};
  bool started = false;
  Device device = nullptr;
};

absl::StatusOr<bool> Nvml::State::Has(int error, const char* call) const {
  switch (error) {
    case kSuccess:
      return true;
    case kNotSupported:
    case kNoPermission:
    case kFunctionNotFound:
      return false;
    case kGpuIsLost:
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
  int error = state->f.init();
  if (error != kSuccess) {
    return absl::UnavailableError(state->Words(error, "nvmlInit"));
  }
  state->started = true;
  error = state->f.handle_by_uuid(uuid.c_str(), &state->device);
  if (error == kNotFound || error == kInvalidArgument) {
    return absl::NotFoundError(absl::StrCat(
        "NVML knows no GPU \"", uuid,
        "\" (a part of a GPU, MIG, has a UUID that is not a GPU's): ",
        state->Words(error, "nvmlDeviceGetHandleByUUID")));
  }
  if (error != kSuccess) {
    return absl::UnavailableError(
        state->Words(error, "nvmlDeviceGetHandleByUUID"));
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(state)));
}

absl::StatusOr<DeviceReading> Nvml::Read() const {
  const Functions& f = state_->f;
  const Device device = state_->device;
  DeviceReading reading;

  Memory memory = {};
  QK_ASSIGN_OR_RETURN(bool has, state_->Has(f.memory_info(device, &memory),
                                            "nvmlDeviceGetMemoryInfo"));
  if (has) {
    reading.memory_used_bytes = static_cast<int64_t>(memory.used);
    reading.memory_total_bytes = static_cast<int64_t>(memory.total);
  }
  Utilization utilization = {};
  QK_ASSIGN_OR_RETURN(has,
                      state_->Has(f.utilization_rates(device, &utilization),
                                  "nvmlDeviceGetUtilizationRates"));
  if (has) reading.utilization = utilization.gpu / 100.0;

  unsigned number = 0;
  QK_ASSIGN_OR_RETURN(has,
                      state_->Has(f.temperature(device, kGpuSensor, &number),
                                  "nvmlDeviceGetTemperature"));
  if (has) reading.temperature_celsius = number;
  QK_ASSIGN_OR_RETURN(has, state_->Has(f.power_usage(device, &number),
                                       "nvmlDeviceGetPowerUsage"));
  if (has) reading.power_watts = number / 1000.0;

  char version[kVersionBytes] = {};
  QK_ASSIGN_OR_RETURN(has, state_->Has(f.driver_version(version, kVersionBytes),
                                       "nvmlSystemGetDriverVersion"));
  version[kVersionBytes - 1] = '\0';
  if (has) reading.driver_version = version;
  return reading;
}

}  // namespace qk::cuda
