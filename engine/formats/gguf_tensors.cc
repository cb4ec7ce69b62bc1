// The list of tensors: names, shapes, types, and where their bytes lie.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf_parser.h"
#include "engine/formats/gguf_types.h"

namespace qk {
namespace {

constexpr uint64_t kMaxNameBytes = 63;

class TensorParser {
 public:
  TensorParser(absl::Span<const uint8_t> file, uint64_t alignment,
               GgufReader& reader)
      : file_(file), alignment_(alignment), reader_(reader) {}

  absl::StatusOr<std::vector<TensorInfo>> Run(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      QK_RETURN_IF_ERROR(ReadTensor(i));
    }
    QK_RETURN_IF_ERROR(PlaceTensors());
    QK_RETURN_IF_ERROR(CheckOverlap());
    return std::move(tensors_);
  }

 private:
  // A tensor as the list has it, before its place in the file is checked.
  struct Listed {
    uint64_t offset;  // from the start of the data section
    uint64_t bytes;
  };

  absl::Status ReadTensor(uint64_t number) {
    const std::string place = absl::StrCat("tensor #", number);
    QK_ASSIGN_OR_RETURN(const absl::string_view name,
                        reader_.ReadString(place));
    if (name.empty() || name.size() > kMaxNameBytes ||
        absl::StrContains(name, '\0')) {
      return reader_.Fail(
          absl::StrCat(place, ": name must have 1 to ", kMaxNameBytes,
                       " bytes and no NUL, got '", Excerpt(name), "'"));
    }
    const std::string where = absl::StrCat("tensor '", Excerpt(name), "'");
    if (!names_.insert(name).second) {
      return reader_.Fail(absl::StrCat("duplicate ", where));
    }
    TensorInfo tensor;
    tensor.name = std::string(name);
    Listed listed;
    QK_ASSIGN_OR_RETURN(tensor.shape, ReadShape(where));
    const auto type = reader_.Read<uint32_t>();
    const auto offset = reader_.Read<uint64_t>();
    if (!type || !offset)
      return reader_.Fail(absl::StrCat(where, ": file ends"));
    listed.offset = *offset;
    QK_ASSIGN_OR_RETURN(tensor.dtype, StoredType(where, *type));
    QK_ASSIGN_OR_RETURN(listed.bytes, ByteSize(where, tensor));
    tensors_.push_back(std::move(tensor));
    listed_.push_back(listed);
    return absl::OkStatus();
  }

  // The file stores the innermost dimension first.
  absl::StatusOr<std::vector<int64_t>> ReadShape(absl::string_view where) {
    const auto dims = reader_.Read<uint32_t>();
    if (!dims) return reader_.Fail(absl::StrCat(where, ": file ends"));
    if (*dims < 1 || *dims > 4) {
      return reader_.Fail(
          absl::StrCat(where, ": must have 1 to 4 dimensions, got ", *dims));
    }
    std::vector<int64_t> shape(*dims);
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) {
      const auto read = reader_.Read<int64_t>();
      if (!read) return reader_.Fail(absl::StrCat(where, ": file ends"));
      if (*read < 1) {
        return reader_.Fail(absl::StrCat(where, ": dimension ",
                                         size - shape.rbegin(),
                                         " must be at least 1, got ", *read));
      }
      *size = *read;
    }
    return shape;
  }

  absl::StatusOr<DType> StoredType(absl::string_view where,
                                   uint32_t type) const {
    if (const auto dtype = DTypeOfGgml(type)) return *dtype;
    return reader_.Fail(absl::StrCat(
        where, ": type ", GgmlTypeName(type),
        " is not implemented (implemented: F32, F16, BF16, Q4_0, Q4_1, Q5_0, "
        "Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4)"));
  }

  absl::StatusOr<uint64_t> ByteSize(absl::string_view where,
                                    const TensorInfo& tensor) const {
    const int64_t block = BlockElements(tensor.dtype);
    if (tensor.shape.back() % block != 0) {
      return reader_.Fail(absl::StrCat(where, ": rows of ", tensor.shape.back(),
                                       " are not a multiple of the ", block,
                                       " of ", DTypeName(tensor.dtype)));
    }
    int64_t elements = 1;
    int64_t bytes = 0;
    bool overflow = false;
    for (const int64_t size : tensor.shape) {
      overflow |= __builtin_mul_overflow(elements, size, &elements);
    }
    overflow |= __builtin_mul_overflow(elements / block,
                                       BlockBytes(tensor.dtype), &bytes);
    if (overflow) return reader_.Fail(absl::StrCat(where, ": size overflow"));
    return static_cast<uint64_t>(bytes);
  }

  absl::Status PlaceTensors() {
    // The data section starts at the next multiple of the alignment.
    const uint64_t start =
        (reader_.position() + alignment_ - 1) / alignment_ * alignment_;
    const uint64_t room = start < file_.size() ? file_.size() - start : 0;
    for (size_t i = 0; i < listed_.size(); ++i) {
      TensorInfo& tensor = tensors_[i];
      const Listed& at = listed_[i];
      if (at.offset % alignment_ != 0) {
        return reader_.Fail(absl::StrCat("tensor '", Excerpt(tensor.name),
                                         "': offset ", at.offset,
                                         " is not a multiple of ", alignment_));
      }
      if (at.offset > room || at.bytes > room - at.offset) {
        return reader_.Fail(
            absl::StrCat("tensor '", Excerpt(tensor.name), "': data [",
                         at.offset, ", ", at.offset, " + ", at.bytes,
                         ") outside file (", room, " bytes of data)"));
      }
      tensor.data = file_.subspan(start + at.offset, at.bytes);
    }
    return absl::OkStatus();
  }

  absl::Status CheckOverlap() const {
    std::vector<const TensorInfo*> order;
    for (const TensorInfo& tensor : tensors_) order.push_back(&tensor);
    std::stable_sort(order.begin(), order.end(),
                     [](const TensorInfo* a, const TensorInfo* b) {
                       return a->data.data() < b->data.data();
                     });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->data.data() < order[i - 1]->data.end()) {
        return reader_.Fail(absl::StrCat("tensor '", Excerpt(order[i]->name),
                                         "': overlaps '",
                                         Excerpt(order[i - 1]->name), "'"));
      }
    }
    return absl::OkStatus();
  }

  absl::Span<const uint8_t> file_;
  uint64_t alignment_;
  GgufReader& reader_;
  FlatHashSet<absl::string_view> names_;
  std::vector<Listed> listed_;  // one for each of tensors_
  std::vector<TensorInfo> tensors_;
};

}  // namespace

absl::StatusOr<std::vector<TensorInfo>> ReadGgufTensors(
    absl::Span<const uint8_t> file, uint64_t count, uint64_t alignment,
    GgufReader& reader) {
  return TensorParser(file, alignment, reader).Run(count);
}

}  // namespace qk
