// The part of NVML that is called, in our words after NVIDIA's reference (the
// library's own header is not needed to compile). cuda_library_headers_test
// compares this with that header where there is one.
#ifndef QKSCOPE_ENGINE_CUDA_NVML_FUNCTIONS_H_
#define QKSCOPE_ENGINE_CUDA_NVML_FUNCTIONS_H_

namespace qk::cuda::ml {

using Device = struct DeviceStruct*;  // nvmlDevice_t
struct Memory {                       // nvmlMemory_t, bytes
  unsigned long long total, free, used;
};
struct Utilization {  // nvmlUtilization_t, percent
  unsigned gpu, memory;
};
// nvmlReturn_t
inline constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3,
                     kNoPermission = 4, kNotFound = 6, kFunctionNotFound = 13,
                     kGpuIsLost = 15, kDeprecated = 26, kGpuNotFound = 28;
// nvmlTemperatureSensors_t: the one of the die
inline constexpr int kGpuSensor = 0;

// The functions, each with its name less "nvml". They return an nvmlReturn_t
// unless they say otherwise.
struct Functions {
  const char* (*ErrorString)(int status);
  int (*Init_v2)();
  int (*Shutdown)();
  int (*SystemGetDriverVersion)(char* text, unsigned bytes);
  int (*DeviceGetHandleByUUID)(const char* uuid, Device*);
  int (*DeviceGetMemoryInfo)(Device, Memory*);
  int (*DeviceGetUtilizationRates)(Device, Utilization*);
  int (*DeviceGetTemperature)(Device, int sensor, unsigned* celsius);
  int (*DeviceGetPowerUsage)(Device, unsigned* milliwatts);
};

}  // namespace qk::cuda::ml

#endif  // QKSCOPE_ENGINE_CUDA_NVML_FUNCTIONS_H_
