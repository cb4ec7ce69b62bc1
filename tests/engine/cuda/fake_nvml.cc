#include "tests/engine/cuda/fake_nvml.h"

#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotFound = 6,
              kInsufficientSize = 7;

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};

int device = 0;  // its address is the handle
int started = 0;
std::string failing;
int failing_status = 0;

int Fails(const char* function) {
  return failing == function ? failing_status : kSuccess;
}

}  // namespace

extern "C" {

void FakeNvmlFail(const char* function, int status) {
  failing = function == nullptr ? "" : function;
  failing_status = status;
}

int FakeNvmlStarted() { return started; }

const char* nvmlErrorString(int status) {
  return status == 9 ? "Driver Not Loaded" : "Some Error";
}

int nvmlInit_v2() {
  if (const int s = Fails("nvmlInit_v2")) return s;
  ++started;
  return kSuccess;
}
int nvmlShutdown() {
  --started;
  return kSuccess;
}

int nvmlSystemGetDriverVersion(char* text, unsigned bytes) {
  if (const int s = Fails("nvmlSystemGetDriverVersion")) return s;
  if (bytes < 80) return kInsufficientSize;
  std::strcpy(text, "580.65.06");
  return kSuccess;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, int** handle) {
  if (const int s = Fails("nvmlDeviceGetHandleByUUID")) return s;
  if (std::string(uuid) != "GPU-fake") return kNotFound;
  *handle = &device;
  return kSuccess;
}

int nvmlDeviceGetMemoryInfo(const int* handle, Memory* memory) {
  if (const int s = Fails("nvmlDeviceGetMemoryInfo")) return s;
  if (handle != &device) return kInvalidArgument;
  *memory = {80ull << 30, 70ull << 30, 10ull << 30};
  return kSuccess;
}

int nvmlDeviceGetUtilizationRates(const int* handle, Utilization* percent) {
  if (const int s = Fails("nvmlDeviceGetUtilizationRates")) return s;
  if (handle != &device) return kInvalidArgument;
  *percent = {42, 7};
  return kSuccess;
}

int nvmlDeviceGetTemperature(const int* handle, int sensor, unsigned* celsius) {
  if (const int s = Fails("nvmlDeviceGetTemperature")) return s;
  if (handle != &device || sensor != 0) return kInvalidArgument;
  *celsius = 61;
  return kSuccess;
}

#ifndef FAKE_WITHOUT_POWER
int nvmlDeviceGetPowerUsage(const int* handle, unsigned* milliwatts) {
  if (const int s = Fails("nvmlDeviceGetPowerUsage")) return s;
  if (handle != &device) return kInvalidArgument;
  *milliwatts = 345678;
  return kSuccess;
}
#endif

}  // extern "C"
