// What the families' GGUF metadata have in common. llama.cpp defines keys and
// tensor names (gguf-py/gguf/constants.py) and what its converter folds.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/architectures/weight_map.h"
#include "engine/formats/gguf.h"
#include "engine/types/model_config.h"

namespace qk {

// A file's keys that begin with its architecture's name.
class GgufReader {
 public:
  GgufReader(const GgufFile& file, absl::string_view type);

  const GgufFile& file() const { return file_; }
  std::string Key(absl::string_view rest) const;
  bool Has(absl::string_view rest) const;

  absl::StatusOr<int> GetSize(absl::string_view rest, int64_t max) const;
  absl::StatusOr<int> GetSizeOr(absl::string_view rest, int64_t max,
                                int missing) const;
  absl::StatusOr<double> GetPositiveOr(absl::string_view rest,
                                       double missing) const;

  // UNIMPLEMENTED for a key of the architecture that is neither one of those
  // that ReadDecoder and ReadRope read, nor without influence, nor in `known`.
  absl::Status RefuseUnknownKeys(
      absl::Span<const absl::string_view> known) const;

  // A model of equal layers without RoPE: sizes, norm_eps of its kind of norm,
  // biases of Q, K and V where the file has them, tied_head where it has no
  // "output.weight", attention scaled by 1 / sqrt(head_dim).
  absl::StatusOr<ModelConfig> ReadDecoder(NormKind norm) const;

  // Of all layers.
  absl::StatusOr<RopeConfig> ReadRope(const ModelConfig& model) const;

 private:
  absl::StatusOr<AttentionConfig> ReadHeads(int hidden) const;

  const GgufFile& file_;
  std::string prefix_;
};

// The names that llama.cpp gives to all families' tensors; `qkv` where the
// file has one fused.
WeightNames GgufNames(const GgufFile& file);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_
