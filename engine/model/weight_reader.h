// Reads a weight's rows from a tensor that is stored as it is, transposed, as
// part of a fused one, or packed into 4-bit integers.
#ifndef QKSCOPE_ENGINE_MODEL_WEIGHT_READER_H_
#define QKSCOPE_ENGINE_MODEL_WEIGHT_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/architectures/architecture.h"
#include "engine/backend/weight_rows.h"
#include "engine/formats/packed_int4.h"
#include "engine/formats/tensor_source.h"

namespace qk {

class WeightReader {
 public:
  // `ref` must have a name. INVALID_ARGUMENT: `missing 'NAME'; expected [..]`,
  // `'NAME': expected [..], got [..]`. The source must outlive the result.
  static absl::StatusOr<WeightReader> Open(const WeightRef& ref,
                                           const Packing& packing,
                                           const TensorSource& source);

  // Writes rows [begin, end) as float32, (end - begin, width), in the engine's
  // order. The rows of a one-dimensional weight have one element each.
  void Read(int64_t begin, int64_t end, float* out) const;

  // The rows for a backend, in the file's own form too where the file has them
  // as they are, in whole blocks or words. The reader must outlive the result.
  WeightRows Rows() const;

  // The number of elements of a row.
  int64_t width() const { return width_; }
  // The weight's name in the file.
  const std::string& name() const { return ref_.name; }
  // Where the file has the element (row, column): its index in the tensor, or
  // in the unpacked weight of a packed layer.
  std::vector<int64_t> FileIndex(int64_t row, int64_t column) const;
  // The tensors that the reader uses, including a bias of zeros that a packed
  // layer carries although the model has none.
  std::vector<std::string> tensor_names() const;

 private:
  explicit WeightReader(const WeightRef& ref);
  absl::Status FindTensor(const TensorSource& source);
  absl::Status OpenPacked(const Packing& packing, const TensorSource& source);
  int64_t FileRow(int64_t row) const;
  // Calls run(row of the file, rows, place in [begin, end)) for all rows
  // [begin, end), those that are neighbours in the file together.
  template <typename Run>
  void ForFileRows(int64_t begin, int64_t end, const Run& run) const;
  bool InWholeBlocks() const;
  bool InWholeWords() const;
  BlockRows Blocks() const;
  Int4Rows Int4() const;
  void ReadFileRows(int64_t first, int64_t rows, float* out) const;
  void ReadColumns(int64_t first, int64_t columns, float* out) const;

  WeightRef ref_;
  int64_t width_ = 1;
  const TensorInfo* tensor_ = nullptr;  // if it is not packed
  std::optional<PackedInt4> packed_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_WEIGHT_READER_H_
