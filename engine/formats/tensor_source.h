// What a model file offers, in any format: named tensors over mapped bytes.
#ifndef QKSCOPE_ENGINE_FORMATS_TENSOR_SOURCE_H_
#define QKSCOPE_ENGINE_FORMATS_TENSOR_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/base/dtype.h"

namespace qk {

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;      // outermost first, row-major (GGUF's `ne`
                                   // reversed): a weight is (out, in)
  absl::Span<const uint8_t> data;  // checked to hold exactly the shape's bytes
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // The tensors, in the file's order.
  virtual absl::Span<const TensorInfo> tensors() const = 0;
  // Returns nullptr if there is no tensor of that name.
  virtual const TensorInfo* Find(absl::string_view name) const = 0;
  // Gives the mapped pages back to the kernel, which reads them again on
  // demand.
  virtual void DropPages() = 0;
  // Returns UNAVAILABLE if a file was changed or cut short since it was opened:
  // what was read from it is then worthless. Ask after the last read.
  virtual absl::Status ReadStatus() const { return absl::OkStatus(); }
  // SHA-256 over the bytes of all files of the source, in the order of their
  // names; hex.
  virtual std::string Sha256Hex() const = 0;
  // The size of all files, in bytes.
  virtual int64_t file_bytes() const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_TENSOR_SOURCE_H_
