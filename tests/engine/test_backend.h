// The backend on which the engine's tests run. QK_TEST_BACKEND names it, so
// that one variable runs the whole suite, goldens included, on another backend.
//
//   QK_TEST_BACKEND=cpu-fma ctest --preset release
//
// The values are cpu (the default), and, for one of its kernels alone,
// cpu-onednn, or cpu-fma, cpu-avx512bf16, cpu-amx (those that the processor
// has; they differ in bf16), or cpu-amx-model for AMX written out; deferred is
// cpu with results that arrive late (deferred_backend.h); emulated-cuda is the
// CUDA backend and its kernels over tests/cuda_on_cpu. In its place a build
// with QK_GPU_TESTS has cuda, the backend on the machine's first GPU, and
// cuda-auto, which multiplies by cuBLASLt where its probe passes. "cpu:3" has 3
// threads unless a test asks for a number itself.
#ifndef QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_
#define QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "engine/backend/backend.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/matmul.h"
#include "engine/cpu/pair_product.h"
#include "engine/cuda/cuda_backend.h"
#include "tests/engine/cpu/bf16_model.h"
#include "tests/engine/deferred_backend.h"
#ifndef QK_GPU_TESTS
#include "tests/cuda_on_cpu/fake_runtime.h"
#endif

namespace qk::testing {

// A backend that tests can make.
struct TestBackend {
  std::string name;
  // With 0 threads, the backend's name decides, or else the number of cores.
  std::function<std::unique_ptr<Backend>(int threads)> make;
  bool has_bf16 = true;
  bool has_threads = true;  // which could change a result
  // With bf16 pages, attention rounds queries and weights to bf16, too.
  bool rounds_attention = false;
  // Its library leaks memory of its own when an allocation fails.
  bool leaks_out_of_memory = false;
  // The kernels that it chooses from; each can be selected by name.
  std::vector<std::string> kernels = {};
};

inline void PrintTo(const TestBackend& b, std::ostream* out) { *out << b.name; }

// What a CUDA backend runs over: the first GPU, or an emulation. Ends the
// process where there is no GPU.
inline std::shared_ptr<cuda::Runtime> OpenTestRuntime() {
#ifdef QK_GPU_TESTS
  absl::StatusOr<std::unique_ptr<cuda::Runtime>> runtime =
      cuda::OpenRuntime({});
  if (!runtime.ok()) {
    std::fprintf(stderr, "no GPU: %s\n", runtime.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(runtime);
#else
  return std::make_shared<cuda_on_cpu::FakeRuntime>(
      cuda_on_cpu::Launches::kUnseen);
#endif
}

inline TestBackend CudaTestBackend(const char* name, MatMulLibrary library) {
  return {.name = name,
          .make =
              [library](int threads) {
                return cuda::MakeCudaBackend(OpenTestRuntime(), threads,
                                             {.matmul = library})
                    .value();
              },
          .has_threads = false,
          .rounds_attention = true};
}

inline std::vector<TestBackend> CudaTestBackends() {
#ifdef QK_GPU_TESTS
  return {CudaTestBackend("cuda", MatMulLibrary::kOwn),
          CudaTestBackend("cuda-auto", MatMulLibrary::kAuto)};
#else
  return {CudaTestBackend("emulated-cuda", MatMulLibrary::kOwn)};
#endif
}

inline std::vector<TestBackend> AllTestBackends() {
  const auto cpu = [](MatMulKernel kernel, const cpu::PairKernel* pairs) {
    return [=](int threads) {
      CpuBackendOptions options;
      options.threads = threads;
      options.matmul = kernel;
      options.pairs = pairs;
      return CreateCpuBackend(options);
    };
  };
  std::vector<TestBackend> all = {{.name = "cpu",
                                   .make = cpu(MatMulKernel::kAuto, nullptr),
                                   .rounds_attention = true}};
  std::vector<const cpu::PairKernel*> kernels = cpu::PairKernels();
  kernels.push_back(&TilesModelKernel());
  for (const cpu::PairKernel* pairs : kernels) {
    const std::string name =
        absl::StrCat("cpu-", absl::AsciiStrToLower(pairs->name));
    all.front().kernels.push_back(name);
    all.push_back({.name = name,
                   .make = cpu(MatMulKernel::kOwn, pairs),
                   .rounds_attention = true});
  }
  all.front().kernels.push_back("cpu-onednn");
  all.push_back({.name = "cpu-onednn",
                 .make = cpu(MatMulKernel::kOneDnn, nullptr),
                 .has_bf16 = cpu::OneDnnSupports(ComputeType::kBF16),
                 .rounds_attention = true,
                 // dnnl_primitive_desc_iterator_create leaks in oneDNN 2.6.
                 .leaks_out_of_memory = true});
  all.push_back({.name = "deferred",
                 .make =
                     [cpu](int threads) {
                       return std::make_unique<DeferredBackend>(
                           cpu(MatMulKernel::kAuto, nullptr)(threads));
                     },
                 .rounds_attention = true});
  for (TestBackend& cuda : CudaTestBackends()) all.push_back(std::move(cuda));
  return all;
}

// Finds a backend by "NAME" or "NAME:THREADS". An unknown name ends the
// process, because the tests would say nothing about the intended backend.
inline TestBackend TestBackendNamed(absl::string_view name) {
  const std::vector<std::string> parts = absl::StrSplit(name, ':');
  int threads = 0;
  const bool good = parts.size() == 1 ||
                    (parts.size() == 2 &&
                     absl::SimpleAtoi(parts[1], &threads) && threads > 0);
  std::string known;
  for (TestBackend& backend : AllTestBackends()) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", backend.name);
    if (!good || backend.name != parts[0]) continue;
    if (threads > 0) {
      backend.make = [make = backend.make, threads](int asked) {
        return make(asked > 0 ? asked : threads);
      };
    }
    return backend;
  }
  std::fprintf(stderr,
               "QK_TEST_BACKEND: must be NAME or NAME:THREADS with a name of "
               "%s; got '%s'\n",
               known.c_str(), std::string(name).c_str());
  std::exit(1);
}

inline TestBackend ChosenTestBackend() {
  const char* name = std::getenv("QK_TEST_BACKEND");
  return TestBackendNamed(name == nullptr ? "cpu" : name);
}

inline std::unique_ptr<Backend> MakeTestBackend(int threads = 0) {
  return ChosenTestBackend().make(threads);
}

// Returns the chosen backend's kernels, each by itself, or only the backend if
// it has just one.
inline std::vector<TestBackend> TestKernels() {
  const TestBackend chosen = ChosenTestBackend();
  std::vector<TestBackend> kernels;
  for (const std::string& kernel : chosen.kernels) {
    kernels.push_back(TestBackendNamed(kernel));
  }
  if (kernels.empty()) kernels.push_back(chosen);
  return kernels;
}

// Returns the name in a form that a test's name can contain.
inline std::string InTestName(const TestBackend& backend) {
  return absl::StrReplaceAll(backend.name, {{"-", "_"}});
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_
