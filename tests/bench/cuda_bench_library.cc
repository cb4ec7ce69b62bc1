// What the device can do at most, and what cuBLASLt is good for.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/half.h"
#include "engine/cuda/cublaslt_probe.h"
#include "engine/cuda/kernels.h"
#include "tests/bench/cuda_bench.h"

namespace qk::bench {
namespace {

using cuda::CublasLt;
using cuda::CublasLtPlan;

constexpr int64_t kWorkspace = int64_t{32} << 20;

// A stream with memory on the device, and its clock.
class Bench {
 public:
  explicit Bench(cuda::Runtime& runtime)
      : runtime_(runtime), stream_(Checked(runtime.MakeStream())) {}
  ~Bench() {
    Check(runtime_.WaitFor(stream_));
    for (void* data : memory_) Check(runtime_.Free(data, stream_));
    Check(runtime_.DestroyStream(stream_));
    Check(runtime_.Trim());
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  cuda::Stream stream() const { return stream_; }

  void* Take(int64_t bytes) {
    memory_.push_back(Checked(runtime_.Allocate(bytes, stream_)));
    return memory_.back();
  }
  // n random values, bf16.
  void* TakeRandom(int64_t n) {
    std::vector<uint16_t> values(n);
    uint32_t state = 3;
    for (uint16_t& value : values) {
      state = state * 1664525 + 1013904223;
      value = RoundToBF16(static_cast<float>(static_cast<int32_t>(state)) /
                          2147483648.0f);
    }
    void* data = Take(2 * n);
    Check(runtime_.CopyToDevice(data, values.data(), 2 * n, stream_));
    Check(runtime_.WaitFor(stream_));
    return data;
  }

  // Seconds of one call of many.
  template <typename Work>
  double Seconds(int times, const Work& work) {
    work();
    Check(runtime_.WaitFor(stream_));
    const cuda::Event begin = Checked(runtime_.MakeEvent());
    const cuda::Event end = Checked(runtime_.MakeEvent());
    Check(runtime_.Record(begin, stream_));
    for (int i = 0; i < times; ++i) work();
    Check(runtime_.Record(end, stream_));
    Check(runtime_.WaitFor(end));
    const double seconds = Checked(runtime_.SecondsBetween(begin, end));
    Check(runtime_.DestroyEvent(begin));
    Check(runtime_.DestroyEvent(end));
    return seconds / times;
  }

 private:
  cuda::Runtime& runtime_;
  const cuda::Stream stream_;
  std::vector<void*> memory_;
};

void PrintRate(const char* what, double value, const char* unit) {
  std::printf("| %s | %.6g %s |\n", what, value, unit);
}

void MeasureMemory(const Settings& settings, cuda::Runtime& runtime,
                   Ceilings* ceilings) {
  Bench bench(runtime);
  const int64_t bytes = int64_t{1} << (settings.small ? 16 : 30);
  const int times = settings.small ? 2 : 20;
  void* from = bench.Take(bytes);
  void* to = bench.Take(bytes);
  Check(runtime.Zero(from, bytes, bench.stream()));
  const double copy = bench.Seconds(times, [&] {
    Check(runtime.CopyOnDevice(to, from, bytes, bench.stream()));
  });
  ceilings->bytes_per_second = 2.0 * static_cast<double>(bytes) / copy;
  PrintRate("copy on the device, read and written",
            ceilings->bytes_per_second / 1e9, "GB/s");
  const int64_t part = bytes / 4;
  void* pinned = Checked(runtime.AllocatePinned(part));
  const auto rate = [&](double seconds) {
    return static_cast<double>(part) / seconds / 1e9;
  };
  PrintRate("from pinned memory",
            rate(bench.Seconds(times / 2,
                               [&] {
                                 Check(runtime.CopyToDevice(to, pinned, part,
                                                            bench.stream()));
                               })),
            "GB/s");
  PrintRate("to pinned memory",
            rate(bench.Seconds(times / 2,
                               [&] {
                                 Check(runtime.CopyToHost(pinned, to, part,
                                                          bench.stream()));
                               })),
            "GB/s");
  Check(runtime.FreePinned(pinned));
  auto* x = static_cast<float*>(to);
  PrintRate("a launch among many, of a kernel that does nothing much",
            1e6 * bench.Seconds(settings.small ? 2 : 5000,
                                [&] { cuda::Add(x, x, 1, bench.stream()); }),
            "us");
  Check(runtime.LaunchStatus());
}

void MeasureLibrary(const Settings& settings, cuda::Runtime& runtime,
                    Ceilings* ceilings) {
  const auto library = CublasLt::Open(settings.cublaslt);
  if (!library.ok()) {
    std::printf("| cuBLASLt | %s |\n",
                std::string(library.status().message()).c_str());
    return;
  }
  Bench bench(runtime);
  const int n = settings.small ? 64 : 8192;
  const void* x = bench.TakeRandom(int64_t{n} * n);
  const void* w = bench.TakeRandom(int64_t{n} * n);
  auto* out = static_cast<float*>(bench.Take(int64_t{4} * n * n));
  void* workspace = bench.Take(kWorkspace);
  std::vector<CublasLtPlan> plans =
      Checked((*library)->Candidates(n, n, kWorkspace));
  plans.resize(std::min<size_t>(plans.size(), 4));
  for (const CublasLtPlan& plan : plans) {
    const double seconds = bench.Seconds(settings.small ? 1 : 10, [&] {
      Check((*library)->Multiply(plan, x, n, w, false, out, workspace,
                                 kWorkspace, bench.stream()));
    });
    const double flops = 2.0 * n * n * n / seconds;
    ceilings->bf16_flops = std::max(ceilings->bf16_flops, flops);
    PrintRate(absl::StrCat("cuBLASLt ", (*library)->version(), ", ", n, " x ",
                           n, " x ", n, ", ", plan.name)
                  .c_str(),
              flops / 1e12, "TFLOP/s");
  }
}

// A verdict's line of the table.
void PrintVerdict(const Settings& settings, cuda::Runtime& runtime,
                  CublasLt& library, const testing::MatrixShape& shape) {
  Bench bench(runtime);
  const auto [out_features, in] = shape;
  const void* w = bench.TakeRandom(int64_t{out_features} * in);
  const cuda::CublasLtVerdict verdict = Checked(cuda::ProbeCublasLt(
      runtime, library, w, out_features, in, kWorkspace, bench.stream()));
  std::printf("| %d x %d | ", out_features, in);
  if (!verdict.plan.has_value()) {
    std::printf("none | | | ");
  } else {
    const int most = settings.small ? 16 : 2048;
    const void* x = bench.TakeRandom(int64_t{most} * in);
    auto* out =
        static_cast<float*>(bench.Take(int64_t{4} * most * out_features));
    void* workspace = bench.Take(kWorkspace);
    const auto seconds = [&](int rows) {
      return bench.Seconds(settings.small ? 1 : 20, [&] {
        Check(library.Multiply(*verdict.plan, x, rows, w, false, out, workspace,
                               kWorkspace, bench.stream()));
      });
    };
    std::printf("%s | %.0f | %.1f | ", verdict.plan->name.c_str(),
                2.0 * most * out_features * in / seconds(most) / 1e12,
                1e6 * seconds(1));
  }
  for (const std::string& reason : verdict.refused) {
    std::printf("%s; ", reason.c_str());
  }
  std::printf("|\n");
  std::fflush(stdout);
}

}  // namespace

Ceilings MeasureCeilings(const Settings& settings, cuda::Runtime& runtime) {
  const cuda::DeviceFacts& facts = runtime.facts();
  std::printf(
      "\n### Ceilings\n\n%s, compute capability %d, %d multiprocessors, %lld "
      "MiB, driver for CUDA %d.\n\n| what | measured |\n|---|---|\n",
      facts.name.c_str(), facts.compute_capability, facts.multiprocessors,
      static_cast<long long>(facts.memory_bytes >> 20), facts.driver);
  Ceilings ceilings;
  MeasureMemory(settings, runtime, &ceilings);
  MeasureLibrary(settings, runtime, &ceilings);
  std::fflush(stdout);
  return ceilings;
}

void ProbeLibrary(const Settings& settings, cuda::Runtime& runtime) {
  std::printf("\n### cuBLASLt: algorithms that keep a row's bytes\n\n");
  const auto library = CublasLt::Open(settings.cublaslt);
  if (!library.ok()) {
    std::printf("%s\n", std::string(library.status().message()).c_str());
    return;
  }
  std::printf(
      "| weight | algorithm | TFLOP/s at 2,048 rows | us at 1 row | refused "
      "before it |\n|---|---|---|---|---|\n");
  std::vector<testing::MatrixShape> all =
      settings.small ? std::vector<testing::MatrixShape>{{20, 72}}
                     : testing::MatricesOf(testing::RealShapes());
  for (const testing::MatrixShape& shape : all) {
    PrintVerdict(settings, runtime, **library, shape);
  }
}

}  // namespace qk::bench
