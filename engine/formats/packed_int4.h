// Linear layers of 4-bit integers, as AWQ (GEMM) and GPTQ checkpoints hold
// them. A 32-bit word holds eight integers; G groups of inputs share a zero and
// a scale:
//   w[o, i] = (q[i, o] - zero[g, o]) * scale[g, o], g the group of input i
//
//   AWQ   qweight (in, out / 8), qzeros (G, out / 8), scales (G, out). A word
//         holds 8 outputs, from its lowest nibble on: 0 2 4 6 1 3 5 7.
//   GPTQ  qweight (in / 8, out): a word holds 8 inputs in order. qzeros
//         (G, out / 8): 8 outputs in order, as zero - 1 in the first version of
//         the format. scales (G, out). g_idx (in): the group of each input.
#ifndef QKSCOPE_ENGINE_FORMATS_PACKED_INT4_H_
#define QKSCOPE_ENGINE_FORMATS_PACKED_INT4_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/tensor_source.h"

namespace qk {

struct Int4Format {
  enum class Method { kAwq, kGptq };
  Method method = Method::kAwq;
  int64_t group_size = 128;  // inputs per group; -1: all inputs
  // GPTQ: the groups are not consecutive inputs, so g_idx must exist. The
  // reader follows g_idx wherever it exists.
  bool desc_act = false;
  // GPTQ's first version stores zero - 1. Its nibble 15 is read as 16, as
  // exllama and vLLM do; AutoGPTQ's slow path reads 0.
  bool zeros_minus_one = false;
};

// Returns whether the source has any of `base`'s packed tensors.
bool HasPackedInt4(const TensorSource& source, absl::string_view base);

// Returns whether a tensor of this name can only belong to a packed layer.
bool IsPackedInt4Name(absl::string_view tensor);

class PackedInt4 {
 public:
  // `base` is the module's name ("model.layers.0.mlp.up_proj"). Errors are
  // INVALID_ARGUMENT: `missing 'NAME'; expected [..]`, `'NAME': expected [..],
  // got [..]`, and entries of g_idx that are not a group. The source must
  // outlive the result.
  static absl::StatusOr<PackedInt4> Open(const TensorSource& source,
                                         absl::string_view base,
                                         int64_t out_features,
                                         int64_t in_features,
                                         const Int4Format& format);

  // Writes rows (outputs) [begin, end) of the weight, (end - begin, in). Scales
  // are widened to float32 before the product; where they are 16 bits wide the
  // product is exact. A NaN scale gives NaN weights.
  void Read(int64_t begin, int64_t end, float* out) const;

  // --- for who unpacks by themselves. Of outputs [first, first + n), both
  // multiples of 8; each writes lines that are `stride` elements apart.
  //
  // Writes the words of lines [line, line + lines) of qweight: n of each line
  // in GPTQ, n / 8 in AWQ.
  void CopyWords(int64_t first, int64_t n, int64_t line, int64_t lines,
                 int64_t stride, uint32_t* out) const;
  // Writes the zeros and the scales of groups [group, group + groups), as Read
  // takes them: n of each group.
  void ReadGroups(int64_t first, int64_t n, int64_t group, int64_t groups,
                  int64_t stride, uint8_t* zeros, float* scales) const;
  bool words_of_inputs() const {
    return format_.method == Int4Format::Method::kGptq;
  }
  int64_t groups() const { return groups_; }
  int64_t group_size() const { return group_size_; }
  // (in), or nothing where groups are consecutive inputs.
  absl::Span<const int32_t> group_of() const { return group_of_; }

  int64_t in_features() const { return in_; }
  // The packed tensors that were found.
  const std::vector<std::string>& tensor_names() const { return names_; }

 private:
  struct Tables;  // zeros and scales of a few rows

  PackedInt4(int64_t out, int64_t in, const Int4Format& format);
  absl::Status FindTensors(const TensorSource& source, absl::string_view base);
  absl::Status ReadGroupIndex(const TensorInfo& tensor);
  int Zero(int64_t group, int64_t output) const;
  void ReadTables(int64_t begin, int64_t rows, Tables* tables) const;
  void Unpack(int64_t begin, int64_t rows, int64_t first_input, int64_t inputs,
              uint8_t* quants) const;
  void Expand(const uint8_t* quants, const Tables& tables, int64_t row,
              int64_t first_input, int64_t inputs, float* out) const;

  Int4Format format_;
  int64_t out_;
  int64_t in_;
  int64_t group_size_;
  int64_t groups_;
  const TensorInfo* qweight_ = nullptr;
  const TensorInfo* qzeros_ = nullptr;
  const TensorInfo* scales_ = nullptr;
  std::vector<int32_t> group_of_;  // (in); empty: groups are consecutive inputs
  std::vector<std::string> names_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_PACKED_INT4_H_
