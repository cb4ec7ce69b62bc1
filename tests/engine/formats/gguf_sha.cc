// Prints `sha256 name` of every tensor of a GGUF or safetensors file as
// float32, and the reading time; for tests/goldens/formats/check_real_files.py.
#include <chrono>
#include <cstdio>
#include <vector>

#include "absl/strings/match.h"
#include "engine/base/sha256.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/gguf.h"
#include "engine/formats/safetensors.h"

namespace qk {
namespace {

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t ElementsOf(const TensorInfo& tensor) {
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= size;
  return elements;
}

void PrintTensors(const TensorSource& source) {
  double spent = 0;
  int64_t total = 0;
  std::vector<float> values;
  for (const TensorInfo& tensor : source.tensors()) {
    const int64_t elements = ElementsOf(tensor);
    values.resize(elements);
    const double start = Seconds();
    Dequantize(tensor.dtype, tensor.data.data(), elements, values.data());
    spent += Seconds() - start;
    total += elements;
    Sha256 sha;
    sha.Update(values.data(), values.size() * sizeof(float));
    std::printf("%s %s\n", sha.FinishHex().c_str(), tensor.name.c_str());
  }
  std::fprintf(stderr, "dequantised %lld elements in %.3f s\n",
               static_cast<long long>(total), spent);
}

absl::StatusOr<std::unique_ptr<TensorSource>> Open(const std::string& path) {
  if (absl::EndsWith(path, ".gguf")) return GgufFile::Open(path);
  return OpenSafetensors(path);
}

int Main(const char* path) {
  const double start = Seconds();
  const auto source = Open(path);
  if (!source.ok()) {
    std::fprintf(stderr, "%s\n", source.status().ToString().c_str());
    return 1;
  }
  std::fprintf(stderr, "opened in %.3f s\n", Seconds() - start);
  PrintTensors(**source);
  std::printf("%s file\n", (*source)->Sha256Hex().c_str());
  return 0;
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  return qk::Main(argv[1]);
}
