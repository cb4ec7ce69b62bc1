// The backend that the engine's tests run on: QK_TEST_BACKEND names it, so that
// one variable runs the whole suite, goldens included, on another one.
//
//   QK_TEST_BACKEND=cpu-highway ctest --preset release
//
// cpu (the default), or cpu-highway or cpu-onednn for one of its kernels alone;
// "cpu:3" has 3 threads where a test does not ask for a number itself.
#ifndef QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_
#define QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "engine/backend/backend.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/matmul.h"

namespace qk::testing {

// A backend that tests can make.
struct TestBackend {
  std::string name;
  // threads 0: as many as its name says, or else as there are cores.
  std::function<std::unique_ptr<Backend>(int threads)> make;
  bool has_bf16 = true;
  // Its library loses memory of its own when it gets no more.
  bool leaks_out_of_memory = false;
  // Those that it chooses from, each of which it may be told to take.
  std::vector<std::string> kernels = {};
};

inline void PrintTo(const TestBackend& b, std::ostream* out) { *out << b.name; }

inline std::vector<TestBackend> AllTestBackends() {
  const auto cpu = [](MatMulKernel kernel) {
    return [kernel](int threads) {
      CpuBackendOptions options;
      options.threads = threads;
      options.matmul = kernel;
      return CreateCpuBackend(options);
    };
  };
  return {{.name = "cpu",
           .make = cpu(MatMulKernel::kAuto),
           .kernels = {"cpu-highway", "cpu-onednn"}},
          {.name = "cpu-highway", .make = cpu(MatMulKernel::kHighway)},
          {.name = "cpu-onednn",
           .make = cpu(MatMulKernel::kOneDnn),
           .has_bf16 = cpu::OneDnnSupports(ComputeType::kBF16),
           // 2.6: dnnl_primitive_desc_iterator_create does.
           .leaks_out_of_memory = true}};
}

// By "NAME" or "NAME:THREADS". A name that there is not ends the process: the
// tests would say nothing about what they were meant for.
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

// The chosen one's kernels, each by itself; it alone if it has but one.
inline std::vector<TestBackend> TestKernels() {
  const TestBackend chosen = ChosenTestBackend();
  std::vector<TestBackend> kernels;
  for (const std::string& kernel : chosen.kernels) {
    kernels.push_back(TestBackendNamed(kernel));
  }
  if (kernels.empty()) kernels.push_back(chosen);
  return kernels;
}

// As a part of a test's name.
inline std::string InTestName(const TestBackend& backend) {
  return absl::StrReplaceAll(backend.name, {{"-", "_"}});
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_TEST_BACKEND_H_
