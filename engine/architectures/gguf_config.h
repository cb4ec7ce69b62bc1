// What the GGUF metadata of all families have in common. llama.cpp defines the
// keys and tensor names (gguf-py/gguf/constants.py) and what its converter
// folds.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/architectures/weight_map.h"
#include "engine/formats/gguf.h"
#include "engine/types/model_config.h"

namespace qk {

// The keys of a file that begin with its architecture's name.
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

  // Returns UNIMPLEMENTED for a key of the architecture that ReadDecoder and
  // ReadRope do not read, that changes a number, and that is not in `known`.
  absl::Status RefuseUnknownKeys(
      absl::Span<const absl::string_view> known) const;

  // Reads a model of equal layers without RoPE: sizes, norm_eps for its kind of
  // norm, biases of Q, K and V where the file has them, tied_lm_head where
  // there is no "output.weight", attention scaled by 1 / sqrt(head_dim).
  absl::StatusOr<ModelConfig> ReadDecoder(NormKind norm) const;

  // Adds a warning to the architecture of a file without its family's window.
  void WarnOfNoWindow(Architecture* architecture) const;

  // Reads the RoPE of all layers.
  absl::StatusOr<RopeConfig> ReadRope(const ModelConfig& model) const;

 private:
  absl::StatusOr<AttentionConfig> ReadHeads(int hidden) const;
  absl::StatusOr<YarnScaling> ReadYarn() const;

  const GgufFile& file_;
  std::string prefix_;
};

// The tensor names that llama.cpp uses for all families; `qkv` is the name of a
// fused tensor, where the file has one.
WeightNames GgufNames(const GgufFile& file);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_GGUF_CONFIG_H_
