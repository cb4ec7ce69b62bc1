#include "engine/model/weight_reader.h"

#include <algorithm>
#include <cstring>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "engine/formats/dequantize.h"

namespace qk {
namespace {

// Reads elements [first, first + n) of a tensor; `first` starts a block of its
// type.
void ReadElements(const TensorInfo& tensor, int64_t first, int64_t n,
                  float* out) {
  Dequantize(tensor.dtype,
             tensor.data.data() +
                 first / BlockElements(tensor.dtype) * BlockBytes(tensor.dtype),
             n, out);
}

std::vector<int64_t> FileShape(const WeightRef& ref) {
  std::vector<int64_t> shape = ref.shape;
  if (ref.fused_rows > 0) shape[0] = ref.fused_rows;
  if (ref.transposed) std::reverse(shape.begin(), shape.end());
  return shape;
}

Int4Format FormatOf(const Packing& packing) {
  Int4Format format;
  format.group_size = packing.group_size;
  if (packing.method == Packing::Method::kGptq) {
    format.method = Int4Format::Method::kGptq;
    format.desc_act = packing.desc_act;
    format.zeros_minus_one = !packing.v2;
  }
  return format;
}

// Returns "model.layers.0.mlp.up_proj" for its weight's name; empty if it is
// not a module's weight.
absl::string_view PackedModule(const WeightRef& ref, const Packing& packing,
                               const TensorSource& source) {
  absl::string_view module = ref.name;
  if (packing.method == Packing::Method::kNone || ref.shape.size() != 2 ||
      source.Find(ref.name) != nullptr ||
      !absl::ConsumeSuffix(&module, ".weight") ||
      !HasPackedInt4(source, module)) {
    return "";
  }
  // Compares whole components: "layers.1" is not part of "layers.10".
  const std::string dotted = absl::StrCat(".", module, ".");
  const bool excluded = absl::c_any_of(
      packing.modules_to_not_convert, [&](const std::string& part) {
        return absl::StrContains(dotted, absl::StrCat(".", part, "."));
      });
  return excluded ? "" : module;
}

}  // namespace

WeightReader::WeightReader(const WeightRef& ref) : ref_(ref) {
  for (size_t i = 1; i < ref.shape.size(); ++i) width_ *= ref.shape[i];
}

absl::StatusOr<WeightReader> WeightReader::Open(const WeightRef& ref,
                                                const Packing& packing,
                                                const TensorSource& source) {
  QK_CHECK(!ref.name.empty());
  WeightReader reader(ref);
  const absl::string_view module = PackedModule(ref, packing, source);
  if (module.empty()) {
    QK_RETURN_IF_ERROR(reader.FindTensor(source));
    return reader;
  }
  // Packed layers are always (in, out), so `transposed` does not matter.
  const int64_t out = ref.fused_rows > 0 ? ref.fused_rows : ref.shape[0];
  QK_ASSIGN_OR_RETURN(
      reader.packed_,
      PackedInt4::Open(source, module, out, ref.shape[1], FormatOf(packing)));
  return reader;
}

absl::Status WeightReader::FindTensor(const TensorSource& source) {
  tensor_ = source.Find(ref_.name);
  const std::vector<int64_t> shape = FileShape(ref_);
  const std::string expected =
      absl::StrCat("[", absl::StrJoin(shape, ","), "]");
  if (tensor_ == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("missing '", ref_.name, "'; expected ", expected));
  }
  if (tensor_->shape != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", ref_.name, "': expected ", expected, ", got [",
                     absl::StrJoin(tensor_->shape, ","), "]"));
  }
  if (tensor_->dtype == DType::kI32) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", ref_.name, "': expected a floating-point type, got I32"));
  }
  if (ref_.transposed && BlockElements(tensor_->dtype) != 1) {
    return absl::UnimplementedError(
        absl::StrCat("'", ref_.name, "': a transposed weight in ",
                     DTypeName(tensor_->dtype), " is not implemented"));
  }
  return absl::OkStatus();
}

std::vector<std::string> WeightReader::tensor_names() const {
  return packed_ ? packed_->tensor_names()
                 : std::vector<std::string>{ref_.name};
}

// Returns the file's row (output) that is row `row` of the engine's weight.
int64_t WeightReader::FileRow(int64_t row) const {
  if (ref_.interleaved_heads > 0) {
    // Row r of a head in Hugging Face's order is row 2 i + j in the file, where
    // j = r / (head_dim / 2) and i = r % (head_dim / 2).
    const int64_t dim = ref_.shape[0] / ref_.interleaved_heads;
    const int64_t r = row % dim;
    row = row - r + 2 * (r % (dim / 2)) + r / (dim / 2);
  }
  if (ref_.block_rows == 0) return ref_.first_row + row;
  return ref_.first_row + row / ref_.block_rows * ref_.block_stride +
         row % ref_.block_rows;
}

std::vector<int64_t> WeightReader::FileIndex(int64_t row,
                                             int64_t column) const {
  std::vector<int64_t> index(ref_.shape.size());
  for (size_t axis = index.size() - 1; axis > 0; --axis) {
    index[axis] = column % ref_.shape[axis];
    column /= ref_.shape[axis];
  }
  index[0] = FileRow(row);
  if (ref_.transposed && !packed_) std::reverse(index.begin(), index.end());
  return index;
}

template <typename Run>
void WeightReader::ForFileRows(int64_t begin, int64_t end,
                               const Run& run) const {
  for (int64_t r = begin; r < end;) {
    const int64_t first = FileRow(r);
    int64_t rows = 1;
    while (r + rows < end && FileRow(r + rows) == first + rows) ++rows;
    run(first, rows, r - begin);
    r += rows;
  }
}

WeightRows WeightReader::Rows() const {
  WeightRows rows;
  rows.floats = [this](int64_t begin, int64_t end, float* out) {
    Read(begin, end, out);
  };
  if (InWholeBlocks()) rows.blocks = Blocks();
  if (InWholeWords()) rows.int4 = Int4();
  return rows;
}

bool WeightReader::InWholeBlocks() const {
  return !packed_ && ref_.shape.size() > 1 && !ref_.transposed &&
         ref_.plus == 0.0f && width_ % BlockElements(tensor_->dtype) == 0;
}

// Words of AWQ and all zeros have eight outputs.
bool WeightReader::InWholeWords() const {
  if (!packed_ || ref_.plus != 0.0f || ref_.shape[0] % 8 != 0) return false;
  for (int64_t row = 0; row < ref_.shape[0]; row += 8) {
    const int64_t first = FileRow(row);
    if (first % 8 != 0) return false;
    for (int64_t i = 1; i < 8; ++i) {
      if (FileRow(row + i) != first + i) return false;
    }
  }
  return true;
}

BlockRows WeightReader::Blocks() const {
  BlockRows blocks;
  blocks.type = tensor_->dtype;
  blocks.row_bytes =
      width_ / BlockElements(tensor_->dtype) * BlockBytes(tensor_->dtype);
  blocks.copy = [this, bytes = blocks.row_bytes](int64_t begin, int64_t end,
                                                 uint8_t* out) {
    ForFileRows(begin, end, [&](int64_t first, int64_t rows, int64_t at) {
      std::memcpy(out + at * bytes, tensor_->data.data() + first * bytes,
                  rows * bytes);
    });
  };
  return blocks;
}

Int4Rows WeightReader::Int4() const {
  Int4Rows int4;
  int4.words_of_inputs = packed_->words_of_inputs();
  int4.groups = packed_->groups();
  int4.group_size = packed_->group_size();
  int4.group_of = packed_->group_of();
  int4.copy_words = [this](Range outputs, Range lines, uint32_t* out) {
    const int64_t per_word = packed_->words_of_inputs() ? 1 : 8;  // outputs
    ForFileRows(
        outputs.begin, outputs.end, [&](int64_t first, int64_t n, int64_t at) {
          packed_->CopyWords(first, n, lines.begin, lines.size(),
                             outputs.size() / per_word, out + at / per_word);
        });
  };
  int4.read_groups = [this](Range outputs, Range groups, uint8_t* zeros,
                            float* scales) {
    ForFileRows(outputs.begin, outputs.end,
                [&](int64_t first, int64_t n, int64_t at) {
                  packed_->ReadGroups(first, n, groups.begin, groups.size(),
                                      outputs.size(), zeros + at, scales + at);
                });
  };
  return int4;
}

void WeightReader::Read(int64_t begin, int64_t end, float* out) const {
  if (ref_.shape.size() == 1) {
    // Rows need not start at a block of the tensor's type.
    std::vector<float> file(tensor_->shape[0]);
    ReadElements(*tensor_, 0, tensor_->shape[0], file.data());
    for (int64_t r = begin; r < end; ++r) out[r - begin] = file[FileRow(r)];
  } else {
    ForFileRows(begin, end, [&](int64_t first, int64_t rows, int64_t at) {
      ReadFileRows(first, rows, out + at * width_);
    });
  }
  if (ref_.plus == 0.0f) return;
  for (int64_t i = 0; i < (end - begin) * width_; ++i) out[i] += ref_.plus;
}

void WeightReader::ReadFileRows(int64_t first, int64_t rows, float* out) const {
  if (packed_) {
    packed_->Read(first, first + rows, out);
  } else if (ref_.transposed) {
    ReadColumns(first, rows, out);
  } else {
    ReadElements(*tensor_, first * width_, rows * width_, out);
  }
}

// The tensor is (in, out): a row of the weight is a column of the tensor.
void WeightReader::ReadColumns(int64_t first, int64_t columns,
                               float* out) const {
  std::vector<float> part(columns);
  for (int64_t i = 0; i < width_; ++i) {
    ReadElements(*tensor_, i * tensor_->shape[1] + first, columns, part.data());
    for (int64_t c = 0; c < columns; ++c) out[c * width_ + i] = part[c];
  }
}

}  // namespace qk
