// GGUF: parse, read every metadata value as every type, dequantise.
#include <vector>

#include "engine/formats/dequantize.h"
#include "engine/formats/gguf.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr int64_t kMaxElements = 1 << 16;

template <typename T>
void Check(const absl::StatusOr<T>& value) {
  if (!value.ok()) qk::fuzz::CheckMessage(value.status());
}

void ReadKey(const qk::GgufFile& file, absl::string_view key) {
  QK_CHECK(file.Has(key));
  Check(file.GetInt64(key));
  Check(file.GetInt64InRange(key, 1, 100));
  Check(file.GetDouble(key));
  Check(file.GetBool(key));
  Check(file.GetInt64s(key));
  Check(file.GetFloats(key));
  const auto text = file.GetString(key);
  Check(text);
  if (text.ok()) qk::fuzz::Touch(*text);
  const auto strings = file.GetStrings(key);
  Check(strings);
  if (!strings.ok()) return;
  for (const absl::string_view string : *strings) qk::fuzz::Touch(string);
}

void ReadTensor(const qk::TensorInfo& tensor) {
  qk::fuzz::Touch(tensor.data);
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= size;
  QK_CHECK(elements / qk::BlockElements(tensor.dtype) *
               qk::BlockBytes(tensor.dtype) ==
           static_cast<int64_t>(tensor.data.size()));
  if (elements > kMaxElements) return;
  std::vector<float> values(elements);
  qk::Dequantize(tensor.dtype, tensor.data.data(), elements, values.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = qk::GgufFile::Parse("m", absl::MakeSpan(data, size));
  if (!file.ok()) {
    qk::fuzz::CheckMessage(file.status());
    return 0;
  }
  for (const absl::string_view key : (*file)->keys()) ReadKey(**file, key);
  for (const qk::TensorInfo& tensor : (*file)->tensors()) {
    QK_CHECK((*file)->Find(tensor.name) == &tensor);
    ReadTensor(tensor);
  }
  return 0;
}
