// Controls of a fake libnvidia-ml, a shared library that tests open in place of
// NVIDIA's. It states NVIDIA's numbers by itself.
#ifndef QKSCOPE_TESTS_ENGINE_CUDA_FAKE_NVML_H_
#define QKSCOPE_TESTS_ENGINE_CUDA_FAKE_NVML_H_

extern "C" {

// It knows one GPU, "GPU-fake": 10 of 80 GiB used, 42 % busy, 61 C, 345.678 W,
// driver 580.65.06.

// From now on a function ("nvmlDeviceGetPowerUsage") gives a status and does
// nothing; null: none does.
void FakeNvmlFail(const char* function, int status);
// How often it was started, less how often it was shut down.
int FakeNvmlStarted();

}  // extern "C"

#endif  // QKSCOPE_TESTS_ENGINE_CUDA_FAKE_NVML_H_
