// The lists of one op, put together so that one copy brings them to the device.
#ifndef QKSCOPE_ENGINE_CUDA_ARGUMENTS_H_
#define QKSCOPE_ENGINE_CUDA_ARGUMENTS_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/types/span.h"

namespace qk::cuda {

class Arguments {
 public:
  // Returns where the list will begin.
  template <typename T>
  int64_t Add(absl::Span<const T> list) {
    const size_t begin =
        (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(begin + list.size() * sizeof(T));
    if (!list.empty()) {
      std::memcpy(bytes_.data() + begin, list.data(), list.size() * sizeof(T));
    }
    return static_cast<int64_t>(begin);
  }
  template <typename T>
  int64_t Add(const std::vector<T>& list) {
    return Add(absl::MakeConstSpan(list));
  }

  const void* data() const { return bytes_.data(); }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }

 private:
  static constexpr size_t kAlignment = 16;
  std::vector<uint8_t> bytes_;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ARGUMENTS_H_
