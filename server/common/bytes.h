// A buffer to read into. Unlike a std::string's, its memory is not zeroed
// first.
#ifndef QKSCOPE_SERVER_COMMON_BYTES_H_
#define QKSCOPE_SERVER_COMMON_BYTES_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/strings/string_view.h"

namespace qk {

class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(size_t size)
      : data_(std::make_unique_for_overwrite<char[]>(size)), size_(size) {}
  Bytes(Bytes&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  Bytes& operator=(Bytes&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  char* data() { return data_.get(); }
  size_t size() const { return size_; }
  absl::string_view view() const { return {data_.get(), size_}; }
  // Empties the object. The caller must delete[] the memory.
  char* Release() {
    size_ = 0;
    return data_.release();
  }

 private:
  std::unique_ptr<char[]> data_;
  size_t size_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_BYTES_H_
