// Copies of the golden models with a weight that is not finite.
#ifndef QKSCOPE_TESTS_POISONED_MODEL_H_
#define QKSCOPE_TESTS_POISONED_MODEL_H_

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "engine/formats/json.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk::testing {

// A tensor as the header of a .safetensors file describes it.
struct FileTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of its data in the file

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t dim : shape) n *= dim;
    return n;
  }
  // The index of a flat element.
  std::vector<int64_t> Index(int64_t element) const {
    std::vector<int64_t> index(shape.size());
    for (size_t axis = shape.size(); axis-- > 0;) {
      index[axis] = element % shape[axis];
      element /= shape[axis];
    }
    return index;
  }
};

inline std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Reads the header, without the engine's reader of such files.
inline std::map<std::string, FileTensor> FileTensors(const std::string& file) {
  std::map<std::string, FileTensor> out;
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  const JsonDocument header =
      JsonDocument::Parse("header", file.substr(8, length), {}).value();
  const absl::Status status = header.root().ForEachMember(
      [&](absl::string_view name, JsonValue value) -> absl::Status {
        if (name == "__metadata__") return absl::OkStatus();
        FileTensor& tensor = out[std::string(name)];
        tensor.dtype = std::string(value.GetString("dtype").value());
        bool first = true;
        const absl::Status offsets =
            value.GetArray("data_offsets")
                ->ForEachElement([&](JsonValue offset) -> absl::Status {
                  if (first) tensor.offset = offset.AsInt64().value();
                  first = false;
                  return absl::OkStatus();
                });
        if (!offsets.ok()) return offsets;
        tensor.offset += 8 + static_cast<int64_t>(length);
        return value.GetArray("shape")->ForEachElement(
            [&](JsonValue dim) -> absl::Status {
              tensor.shape.push_back(dim.AsInt64().value());
              return absl::OkStatus();
            });
      });
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

// Writes a NaN (or the infinity with the sign of `sign`) over one element of a
// tensor of F32, F16 or BF16.
inline void Poison(const FileTensor& tensor, int64_t element, int sign,
                   std::string* file) {
  const uint32_t f32 = sign == 0 ? 0x7fc00000u : 0x7f800000u;
  const uint32_t f16 = sign == 0 ? 0x7e00u : 0x7c00u;
  const uint32_t bf16 = f32 >> 16;
  const int64_t size = tensor.dtype == "F32" ? 4 : 2;
  uint32_t bits = tensor.dtype == "F32"   ? f32
                  : tensor.dtype == "F16" ? f16
                                          : bf16;
  if (sign < 0) bits |= 1u << (8 * size - 1);
  std::memcpy(file->data() + tensor.offset + element * size, &bits, size);
}

// Writes into `folder` a copy of a golden model in which one element of a
// tensor is NaN. Returns the copy's path.
inline std::string PoisonedModel(const TempFolder& folder,
                                 const std::string& golden,
                                 const std::string& tensor, int64_t element) {
  const std::string from =
      std::string(QK_SOURCE_DIR) + "/tests/goldens/" + golden;
  std::string file = ReadWhole(from + "/model.safetensors");
  const auto tensors = FileTensors(file);
  EXPECT_EQ(tensors.count(tensor), 1u) << tensor;
  Poison(tensors.at(tensor), element, 0, &file);
  folder.Write("config.json", ReadWhole(from + "/config.json"));
  folder.Write("model.safetensors", file);
  return folder.path();
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_POISONED_MODEL_H_
