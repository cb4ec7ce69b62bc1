// Measures the CUDA backend on a GPU, by the device's own clock. Models have
// random weights, so there are no files. Prints tables in Markdown, with the
// targets beside what was measured.
//
//   cuda_bench [--backend NAME] [--small] [--model NAME] [--cublaslt FILE]
//              [PART...]
//
// PART: ceilings, probe, ops (and loads), passes; all by default. NAME: of
// tests/engine/test_backend.h; the CUDA backend by default, which is the real
// one in a build with QK_GPU_TESTS, and otherwise an emulation. --small: sizes
// that the emulation does in seconds; they only show that it runs. --model: ops
// and passes of this one alone, for example Llama-1B.
#include "tests/bench/cuda_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/str_join.h"
#include "tests/engine/test_backend.h"

namespace qk::bench {

std::vector<testing::LlamaShape> Settings::shapes() const {
  if (small) return {testing::TinyShape()};
  std::vector<testing::LlamaShape> shapes = testing::RealShapes();
  if (model.empty()) {
    shapes.pop_back();  // an 8B's passes are a 7B's, nearly
    return shapes;
  }
  std::erase_if(shapes, [&](const auto& s) { return s.name != model; });
  if (shapes.empty()) {
    Check(absl::NotFoundError("there is no model " + model));
  }
  return shapes;
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fflush(stdout);
  std::fprintf(stderr, "cuda_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

DeviceBuffer RandomFloats(Backend& backend, int64_t n) {
  std::vector<float> values(n);
  uint32_t state = 7;
  for (float& value : values) {
    state = state * 1664525 + 1013904223;
    value = static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
  }
  DeviceBuffer buffer = Checked(backend.Allocate(4 * n));
  backend.Upload(buffer.as<void>(), values.data(), 4 * n);
  return buffer;
}

double SecondsOf(Backend& backend, bool small,
                 const std::function<void()>& work) {
  const auto time = [&](int times) {
    const std::unique_ptr<Moment> begin = backend.Mark();
    for (int i = 0; i < times; ++i) work();
    const std::unique_ptr<Moment> end = backend.Mark();
    Check(backend.Synchronize());
    return end->SecondsSince(*begin) / times;
  };
  time(1);
  const double once = time(1);
  if (small) return time(2);
  return time(
      std::clamp(static_cast<int>(0.02 / std::max(once, 1e-7)), 3, 500));
}

namespace {

void PrintHead(const Backend& backend) {
  const BackendInfo info = backend.info();
  std::printf("Backend %s, %s, kernels %s", info.name.c_str(),
              info.device.c_str(),
              absl::StrJoin(info.kernel_ids, ", ").c_str());
  for (const auto& [name, version] : info.library_versions) {
    std::printf(", %s %s", name.c_str(), version.c_str());
  }
  std::printf(".\n");
}

int Usage() {
  std::fprintf(stderr,
               "usage: cuda_bench [--backend NAME] [--small] [--model NAME] "
               "[--cublaslt FILE] [ceilings|probe|ops|passes...]\n");
  return 2;
}

int Main(const std::vector<std::string>& arguments) {
  const std::vector<std::string> parts = {"ceilings", "probe", "ops", "passes"};
  Settings settings;
  std::string name = testing::CudaTestBackends().front().name;
  std::vector<std::string> chosen;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool has_value = i + 1 < arguments.size();
    if (word == "--small") {
      settings.small = true;
    } else if (word == "--backend" && has_value) {
      name = arguments[++i];
    } else if (word == "--model" && has_value) {
      settings.model = arguments[++i];
    } else if (word == "--cublaslt" && has_value) {
      settings.cublaslt = arguments[++i];
    } else if (std::find(parts.begin(), parts.end(), word) != parts.end()) {
      chosen.push_back(word);
    } else {
      return Usage();
    }
  }
  if (chosen.empty()) chosen = parts;
  const auto wanted = [&](const char* part) {
    return std::find(chosen.begin(), chosen.end(), part) != chosen.end();
  };
  // The runtime's memory is given back before the backend takes it.
  Ceilings ceilings;
  if (wanted("ceilings") || wanted("probe")) {
    const std::shared_ptr<cuda::Runtime> runtime = testing::OpenTestRuntime();
    Check(runtime->Use());
    if (wanted("ceilings")) ceilings = MeasureCeilings(settings, *runtime);
    if (wanted("probe")) ProbeLibrary(settings, *runtime);
  }
  if (!wanted("ops") && !wanted("passes")) return 0;
  const std::unique_ptr<Backend> backend =
      testing::TestBackendNamed(name).make(0);
  PrintHead(*backend);
  if (wanted("ops")) TimeOps(settings, ceilings, *backend);
  if (wanted("ops")) TimeLoads(settings, *backend);
  if (wanted("passes")) TimePasses(settings, *backend);
  return 0;
}

}  // namespace
}  // namespace qk::bench

int main(int argc, char** argv) {
  return qk::bench::Main({argv + 1, argv + argc});
}
