#include "engine/cuda/describe.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace qk::cuda {

BackendInfo Describe(const DeviceFacts& facts, const DeviceReading& reading,
                     const std::string& f32, const std::string& bf16) {
  const std::string own = absl::StrCat("own-sm_", facts.compute_capability);
  BackendInfo info;
  info.name = "cuda";
  info.device = absl::StrCat(facts.name, " (", facts.uuid, ")");
  info.memory_bytes = facts.usable_bytes;
  info.kernel_ids = {
      absl::StrCat("matmul.f32:", f32),
      absl::StrCat("matmul.bf16:", bf16),
      absl::StrCat("attention:", own),
      absl::StrCat("elementwise:", own),
  };
  info.library_versions = {
      {"cuda-driver", absl::StrFormat("%d.%d", facts.driver / 1000,
                                      facts.driver % 1000 / 10)}};
  if (reading.driver_version.has_value()) {
    info.library_versions["nvidia-driver"] = *reading.driver_version;
  }
  return info;
}

// A GPU has no cache that intermediate values would have to stay in.
Tiles GpuTiles() {
  Tiles tiles;
  tiles.mlp_rows = 2048;
  tiles.step_rows = 8192;
  tiles.step_keys = 8192;
  tiles.logits_bytes = int64_t{128} << 20;
  tiles.staging_bytes = int64_t{16} << 20;
  return tiles;
}

}  // namespace qk::cuda
