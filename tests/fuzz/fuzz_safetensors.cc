#include "engine/formats/dequantize.h"
#include "engine/formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto contents = qk::ParseSafetensors("m", absl::MakeSpan(data, size));
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
  return 0;
}
