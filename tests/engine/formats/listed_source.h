// Tensors of tests that are no file's.
#ifndef QKSCOPE_TESTS_ENGINE_FORMATS_LISTED_SOURCE_H_
#define QKSCOPE_TESTS_ENGINE_FORMATS_LISTED_SOURCE_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/formats/tensor_source.h"

namespace qk::testing {

class ListedSource : public TensorSource {
 public:
  explicit ListedSource(std::vector<TensorInfo> tensors = {})
      : tensors_(std::move(tensors)) {}

  absl::Span<const TensorInfo> tensors() const override { return tensors_; }
  const TensorInfo* Find(absl::string_view name) const override {
    const auto found = std::find_if(
        tensors_.begin(), tensors_.end(),
        [&](const TensorInfo& tensor) { return tensor.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }
  void DropPages() override {}
  std::string Sha256Hex() const override { return ""; }
  int64_t file_bytes() const override { return 0; }

 protected:
  std::vector<TensorInfo> tensors_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORMATS_LISTED_SOURCE_H_
