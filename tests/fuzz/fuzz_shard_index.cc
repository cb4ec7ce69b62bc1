#include "absl/strings/match.h"
#include "engine/formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index = qk::ParseShardIndex(
      "m", absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!index.ok()) {
    qk::fuzz::CheckMessage(index.status());
    return 0;
  }
  QK_CHECK(!index->files.empty());
  for (const std::string& file : index->files) {
    QK_CHECK(!absl::StrContains(file, '/') && file[0] != '.');
  }
  for (const auto& [tensor, file] : index->tensors) {
    QK_CHECK(file < index->files.size());
  }
  return 0;
}
