#include "engine/formats/packed_int4.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/quant_blocks.h"

namespace qk {
namespace {

// A tile is unpacked to bytes, which stay in the first-level cache, before its
// rows are written one by one: the file has inputs and outputs the other way
// round.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileInputs = 512;

// The nibble at which AWQ's word c holds output 8 c + i.
constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t LoadWord(const TensorInfo& tensor, int64_t index) {
  uint32_t word;
  std::memcpy(&word, tensor.data.data() + index * sizeof(word), sizeof(word));
  return word;
}

std::string Shape(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

template <typename... Args>
absl::Status Fail(absl::string_view tensor, const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat("'", tensor, "'", args...));
}

absl::StatusOr<const TensorInfo*> Find(const TensorSource& source,
                                       const std::string& name,
                                       const std::vector<int64_t>& shape,
                                       bool integers) {
  const TensorInfo* tensor = source.Find(name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("missing '", name, "'; expected ", Shape(shape)));
  }
  if (tensor->shape != shape) {
    return Fail(name, ": expected ", Shape(shape), ", got ",
                Shape(tensor->shape));
  }
  const DType dtype = tensor->dtype;
  const bool is_float =
      dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32;
  if (integers ? dtype != DType::kI32 : !is_float) {
    return Fail(name, ": expected ", integers ? "I32" : "F16, BF16 or F32",
                ", got ", DTypeName(dtype));
  }
  return tensor;
}

// Spreads eight nibbles over eight bytes, lowest first.
QK_INLINE void SpreadWord(uint32_t word, uint8_t* out) {
  uint64_t x = word;
  x = (x | x << 16) & 0x0000FFFF0000FFFFu;
  x = (x | x << 8) & 0x00FF00FF00FF00FFu;
  x = (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
  std::memcpy(out, &x, sizeof(x));
}

// Sets out[i] to the nibble of words[i] at `shift`.
QK_CLONES void TakeNibbles(const uint32_t* __restrict words, int64_t n,
                           int shift, uint8_t* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<uint8_t>((words[i] >> shift) & 15);
  }
}

QK_CLONES void Scale(const uint8_t* __restrict quants, int64_t n, float zero,
                     float scale, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = (static_cast<float>(static_cast<int>(quants[i])) - zero) * scale;
  }
}

// The same for a layer in which every input names its group.
QK_CLONES void ScaleByGroup(const uint8_t* __restrict quants, int64_t n,
                            const int32_t* __restrict group,
                            const float* __restrict zeros,
                            const float* __restrict scales,
                            float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    const float q = static_cast<float>(static_cast<int>(quants[i]));
    out[i] = (q - zeros[group[i]]) * scales[group[i]];
  }
}

}  // namespace

bool HasPackedInt4(const TensorSource& source, absl::string_view base) {
  for (const char* part : {".qweight", ".qzeros", ".scales"}) {
    if (source.Find(absl::StrCat(base, part)) != nullptr) return true;
  }
  return false;
}

bool IsPackedInt4Name(absl::string_view tensor) {
  return absl::EndsWith(tensor, ".qweight") ||
         absl::EndsWith(tensor, ".qzeros") || absl::EndsWith(tensor, ".g_idx");
}

// Zeros and scales, (kTileRows, groups) each.
struct PackedInt4::Tables {
  std::vector<float> zeros, scales;
};

PackedInt4::PackedInt4(int64_t out, int64_t in, const Int4Format& format)
    : format_(format),
      out_(out),
      in_(in),
      group_size_(format.group_size == -1 ? in : format.group_size),
      groups_(in / group_size_) {}

absl::StatusOr<PackedInt4> PackedInt4::Open(const TensorSource& source,
                                            absl::string_view base,
                                            int64_t out_features,
                                            int64_t in_features,
                                            const Int4Format& format) {
  QK_CHECK(out_features > 0 && in_features > 0);
  QK_CHECK(format.group_size == -1 || format.group_size > 0);
  if (format.group_size != -1 && in_features % format.group_size != 0) {
    return Fail(base, ": ", in_features,
                " inputs are not a whole number of groups of ",
                format.group_size);
  }
  const bool gptq = format.method == Int4Format::Method::kGptq;
  if (out_features % 8 != 0 || (gptq && in_features % 8 != 0)) {
    return Fail(base, ": a packed layer must have multiples of 8, got ",
                Shape({out_features, in_features}));
  }
  PackedInt4 packed(out_features, in_features, format);
  QK_RETURN_IF_ERROR(packed.FindTensors(source, base));
  return packed;
}

absl::Status PackedInt4::FindTensors(const TensorSource& source,
                                     absl::string_view base) {
  const bool gptq = format_.method == Int4Format::Method::kGptq;
  const auto find = [&](const char* part, const std::vector<int64_t>& shape,
                        bool integers, const TensorInfo** out) -> absl::Status {
    const std::string name = absl::StrCat(base, part);
    QK_ASSIGN_OR_RETURN(*out, Find(source, name, shape, integers));
    names_.push_back(name);
    return absl::OkStatus();
  };
  const std::vector<int64_t> qweight =
      gptq ? std::vector<int64_t>{in_ / 8, out_}
           : std::vector<int64_t>{in_, out_ / 8};
  QK_RETURN_IF_ERROR(find(".qweight", qweight, true, &qweight_));
  QK_RETURN_IF_ERROR(find(".qzeros", {groups_, out_ / 8}, true, &qzeros_));
  QK_RETURN_IF_ERROR(find(".scales", {groups_, out_}, false, &scales_));
  const bool has_index =
      gptq && source.Find(absl::StrCat(base, ".g_idx")) != nullptr;
  if (!has_index && !(gptq && format_.desc_act)) return absl::OkStatus();
  const TensorInfo* group_index;
  QK_RETURN_IF_ERROR(find(".g_idx", {in_}, true, &group_index));
  return ReadGroupIndex(*group_index);
}

// This is a copy: the file may change after the check.
absl::Status PackedInt4::ReadGroupIndex(const TensorInfo& tensor) {
  std::vector<int32_t> group_of(in_);
  bool in_order = true;
  for (int64_t i = 0; i < in_; ++i) {
    group_of[i] = static_cast<int32_t>(LoadWord(tensor, i));
    if (group_of[i] < 0 || group_of[i] >= groups_) {
      return Fail(tensor.name, "[", i, "]: must be in [0, ", groups_ - 1,
                  "], got ", group_of[i]);
    }
    in_order &= group_of[i] == i / group_size_;
  }
  if (!in_order) group_of_ = std::move(group_of);
  return absl::OkStatus();
}

void PackedInt4::Read(int64_t begin, int64_t end, float* out) const {
  QK_CHECK(0 <= begin && begin <= end && end <= out_);
  Tables tables;
  std::vector<uint8_t> quants(kTileRows * kTileInputs);
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, end - row);
    ReadTables(row, rows, &tables);
    for (int64_t i = 0; i < in_; i += kTileInputs) {
      const int64_t inputs = std::min(kTileInputs, in_ - i);
      Unpack(row, rows, i, inputs, quants.data());
      for (int64_t r = 0; r < rows; ++r) {
        Expand(quants.data() + r * kTileInputs, tables, r, i, inputs,
               out + (row - begin + r) * in_ + i);
      }
    }
  }
}

int PackedInt4::Zero(int64_t group, int64_t output) const {
  const uint32_t word = LoadWord(*qzeros_, group * (out_ / 8) + output / 8);
  const int64_t nibble =
      words_of_inputs() ? output % 8 : kAwqNibble[output % 8];
  return static_cast<int>(word >> (4 * nibble) & 15) +
         (format_.zeros_minus_one ? 1 : 0);
}

void PackedInt4::ReadTables(int64_t begin, int64_t rows, Tables* tables) const {
  const int64_t scale_bytes = BlockBytes(scales_->dtype);
  tables->zeros.resize(kTileRows * groups_);
  tables->scales.resize(kTileRows * groups_);
  float scales[kTileRows];
  for (int64_t g = 0; g < groups_; ++g) {
    Dequantize(scales_->dtype,
               scales_->data.data() + (g * out_ + begin) * scale_bytes, rows,
               scales);
    for (int64_t r = 0; r < rows; ++r) {
      tables->zeros[r * groups_ + g] = static_cast<float>(Zero(g, begin + r));
      tables->scales[r * groups_ + g] = scales[r];
    }
  }
}

void PackedInt4::CopyWords(int64_t first, int64_t n, int64_t line,
                           int64_t lines, int64_t stride, uint32_t* out) const {
  QK_CHECK(first % 8 == 0 && n % 8 == 0 && first + n <= out_);
  QK_CHECK(0 <= line && line + lines <= qweight_->shape[0]);
  const int64_t per_word = words_of_inputs() ? 1 : 8;  // outputs
  const int64_t width = out_ / per_word;
  for (int64_t l = 0; l < lines; ++l) {
    const int64_t word = (line + l) * width + first / per_word;
    std::memcpy(out + l * stride, qweight_->data.data() + 4 * word,
                4 * n / per_word);
  }
}

void PackedInt4::ReadGroups(int64_t first, int64_t n, int64_t group,
                            int64_t groups, int64_t stride, uint8_t* zeros,
                            float* scales) const {
  QK_CHECK(first % 8 == 0 && n % 8 == 0 && first + n <= out_);
  QK_CHECK(0 <= group && group + groups <= groups_);
  const int64_t scale_bytes = BlockBytes(scales_->dtype);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = (group + g) * out_ + first;
    Dequantize(scales_->dtype, scales_->data.data() + at * scale_bytes, n,
               scales + g * stride);
    for (int64_t o = 0; o < n; ++o) {
      zeros[g * stride + o] = static_cast<uint8_t>(Zero(group + g, first + o));
    }
  }
}

// quants (rows, kTileInputs), each from 0 to 15.
void PackedInt4::Unpack(int64_t begin, int64_t rows, int64_t first_input,
                        int64_t inputs, uint8_t* quants) const {
  const int64_t end = begin + rows;
  if (format_.method == Int4Format::Method::kGptq) {
    for (int64_t i = 0; i < inputs; i += 8) {
      const int64_t words = (first_input + i) / 8 * out_ + begin;
      for (int64_t r = 0; r < rows; ++r) {
        SpreadWord(LoadWord(*qweight_, words + r),
                   quants + r * kTileInputs + i);
      }
    }
    return;
  }
  uint32_t words[kTileInputs];
  for (int64_t column = begin / 8; column * 8 < end; ++column) {
    for (int64_t i = 0; i < inputs; ++i) {
      words[i] = LoadWord(*qweight_, (first_input + i) * (out_ / 8) + column);
    }
    const int64_t last = std::min(end, column * 8 + 8);
    for (int64_t o = std::max(begin, column * 8); o < last; ++o) {
      TakeNibbles(words, inputs, 4 * kAwqNibble[o % 8],
                  quants + (o - begin) * kTileInputs);
    }
  }
}

// Writes one row of a tile to out (inputs).
void PackedInt4::Expand(const uint8_t* quants, const Tables& tables,
                        int64_t row, int64_t first_input, int64_t inputs,
                        float* out) const {
  const float* zeros = tables.zeros.data() + row * groups_;
  const float* scales = tables.scales.data() + row * groups_;
  if (!group_of_.empty()) {
    ScaleByGroup(quants, inputs, group_of_.data() + first_input, zeros, scales,
                 out);
    return;
  }
  for (int64_t i = 0; i < inputs;) {
    const int64_t g = (first_input + i) / group_size_;
    const int64_t n = std::min(inputs, (g + 1) * group_size_ - first_input) - i;
    Scale(quants + i, n, zeros[g], scales[g], out + i);
    i += n;
  }
}

}  // namespace qk
