// The parts of cuda_bench: what they share, and what each prints.
#ifndef QKSCOPE_TESTS_BENCH_CUDA_BENCH_H_
#define QKSCOPE_TESTS_BENCH_CUDA_BENCH_H_

#include <functional>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cuda/runtime.h"
#include "tests/engine/random_model.h"

namespace qk::bench {

struct Settings {
  // Small sizes, for a look at whether it all runs; the figures mean nothing.
  bool small = false;
  std::string model;     // "": all but one
  std::string cublaslt;  // the library's file; "": where the system has it

  std::vector<testing::LlamaShape> shapes() const;
};

// What the device can do at most, measured; 0: unknown.
struct Ceilings {
  double bytes_per_second = 0;  // read and written, by a copy
  double bf16_flops = 0;        // by cuBLASLt, 8,192 x 8,192 x 8,192
};

// Each prints a table in Markdown, and ends the process on an error.
Ceilings MeasureCeilings(const Settings& settings, cuda::Runtime& runtime);
// Which algorithm of cuBLASLt keeps a row's bytes, for each weight's size.
void ProbeLibrary(const Settings& settings, cuda::Runtime& runtime);
void TimeOps(const Settings& settings, const Ceilings& ceilings,
             Backend& backend);
void TimeLoads(const Settings& settings, Backend& backend);
void TimePasses(const Settings& settings, Backend& backend);

// Ends the process unless the status is OK.
void Check(const absl::Status& status);
template <typename T>
T Checked(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Random float32 values between -1 and 1 in device memory.
DeviceBuffer RandomFloats(Backend& backend, int64_t n);
// The device's seconds that one call of `work` takes. It is called once before
// it is timed, then for about 20 ms; `small`: twice.
double SecondsOf(Backend& backend, bool small,
                 const std::function<void()>& work);

}  // namespace qk::bench

#endif  // QKSCOPE_TESTS_BENCH_CUDA_BENCH_H_
