// Writes GGUF files, good and bad, for tests.
#ifndef QKSCOPE_TESTS_ENGINE_FORMATS_GGUF_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_FORMATS_GGUF_TESTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/formats/gguf.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {

inline std::string GgufString(const std::string& text) {
  return Raw<uint64_t>(text.size()) + text;
}

inline std::string GgufType32(GgufType type) {
  return Raw(static_cast<uint32_t>(type));
}

// Makes one metadata record from a value that is already encoded.
inline std::string GgufKey(const std::string& key, GgufType type,
                           const std::string& value) {
  return GgufString(key) + GgufType32(type) + value;
}

inline std::string GgufArray(const std::string& key, GgufType element,
                             uint64_t count, const std::string& values) {
  return GgufKey(key, GgufType::kArray,
                 GgufType32(element) + Raw(count) + values);
}

// `ne` is in the file's order: innermost first.
inline std::string GgufTensor(const std::string& name,
                              const std::vector<int64_t>& ne, uint32_t type,
                              uint64_t offset) {
  std::string record = GgufString(name) + Raw(static_cast<uint32_t>(ne.size()));
  for (const int64_t size : ne) record += Raw(size);
  return record + Raw(type) + Raw(offset);
}

// A whole file. The counts are the lists' sizes unless a test sets them.
struct GgufBuilder {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> keys;
  std::vector<std::string> tensors;
  std::string data;
  uint64_t alignment = 32;
  int64_t key_count = -1;
  int64_t tensor_count = -1;

  std::string Build() const {
    std::string file = magic + Raw(version);
    file += Raw<uint64_t>(tensor_count < 0 ? tensors.size() : tensor_count);
    file += Raw<uint64_t>(key_count < 0 ? keys.size() : key_count);
    for (const std::string& key : keys) file += key;
    for (const std::string& tensor : tensors) file += tensor;
    if (!data.empty()) {
      file.resize((file.size() + alignment - 1) / alignment * alignment);
    }
    return file + data;
  }
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORMATS_GGUF_TESTING_H_
