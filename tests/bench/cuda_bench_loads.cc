// How fast weights come to the device, by the host's clock, from files that are
// in memory.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "engine/formats/dequantize.h"
#include "engine/model/weight_reader.h"
#include "tests/bench/cuda_bench.h"
#include "tests/engine/formats/listed_source.h"

namespace qk::bench {
namespace {

double SecondsOfLoad(Backend& backend, const WeightRef& ref,
                     const WeightRows& rows) {
  const auto start = std::chrono::steady_clock::now();
  Checked(backend.PackMatrix(ref.shape[0], ref.shape[1], ComputeType::kBF16,
                             rows, nullptr));
  Check(backend.Synchronize());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

void TimeLoads(const Settings& settings, Backend& backend) {
  std::printf(
      "\n### Loads, to bf16, the best of 4\n\n| stored as | converted by | "
      "million weights/s | GB/s of the file |\n|---|---|---|---|\n");
  WeightRef ref;
  ref.name = "weight";
  ref.shape = {settings.small ? 64 : 11008, settings.small ? 512 : 4096};
  const int64_t elements = ref.shape[0] * ref.shape[1];
  for (const DType type : {DType::kBF16, DType::kQ8_0, DType::kQ4_K}) {
    const std::vector<uint8_t> file(
        elements / BlockElements(type) * BlockBytes(type), uint8_t{0x11});
    const testing::ListedSource source({{ref.name, type, ref.shape, file}});
    const WeightReader reader = Checked(WeightReader::Open(ref, {}, source));
    for (const bool by_host : {true, false}) {
      const WeightRows rows =
          by_host ? WeightRows{reader.Rows().floats} : reader.Rows();
      double best = SecondsOfLoad(backend, ref, rows);
      for (int i = 0; i < 3; ++i) {
        best = std::min(best, SecondsOfLoad(backend, ref, rows));
      }
      std::printf("| %s | %s | %.0f | %.1f |\n",
                  std::string(DTypeName(type)).c_str(),
                  by_host ? "the host" : "the device",
                  1e-6 * static_cast<double>(elements) / best,
                  1e-9 * static_cast<double>(file.size()) / best);
      std::fflush(stdout);
    }
  }
}

}  // namespace qk::bench
