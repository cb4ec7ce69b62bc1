// Safetensors: parses, touches all data, reads what looks like packed layers.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/packed_int4.h"
#include "engine/formats/safetensors.h"
#include "tests/engine/formats/listed_source.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr int64_t kMaxElements = 1 << 16;

using Source = qk::testing::ListedSource;

void ReadPacked(const Source& source, absl::string_view module, int64_t out,
                int64_t in, const qk::Int4Format& format) {
  if (out <= 0 || in <= 0 || out > kMaxElements / in) return;
  const auto packed = qk::PackedInt4::Open(source, module, out, in, format);
  if (!packed.ok()) return qk::fuzz::CheckMessage(packed.status());
  std::vector<float> rows(out * in);
  packed->Read(0, out, rows.data());
  packed->Read(out / 2, out, rows.data());
}

void ReadPackedLayers(const Source& source) {
  using Method = qk::Int4Format::Method;
  for (const qk::TensorInfo& tensor : source.tensors()) {
    absl::string_view module = tensor.name;
    if (!absl::ConsumeSuffix(&module, ".qweight") || tensor.shape.size() != 2 ||
        tensor.shape[0] > kMaxElements || tensor.shape[1] > kMaxElements) {
      continue;
    }
    const int64_t rows = tensor.shape[0];
    const int64_t columns = tensor.shape[1];
    for (const int64_t group : {-1, 16}) {
      ReadPacked(source, module, columns * 8, rows,
                 {Method::kAwq, group, false, false});
      ReadPacked(source, module, columns, rows * 8,
                 {Method::kGptq, group, false, true});
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto contents = qk::ParseSafetensors("m", absl::MakeSpan(data, size));
  if (!contents.ok()) {
    qk::fuzz::CheckMessage(contents.status());
    return 0;
  }
  for (const qk::TensorInfo& tensor : contents->tensors) {
    int64_t bytes = qk::BlockBytes(tensor.dtype);
    for (const int64_t length : tensor.shape) bytes *= length;
    QK_CHECK(bytes == static_cast<int64_t>(tensor.data.size()));
    qk::fuzz::Touch(tensor.data);
  }
  ReadPackedLayers(Source(std::move(contents->tensors)));
  return 0;
}
