// The safetensors format: an 8-byte length, a JSON header, raw little-endian
// tensors. https://github.com/huggingface/safetensors, "Format".
#ifndef QKSCOPE_ENGINE_FORMATS_SAFETENSORS_H_
#define QKSCOPE_ENGINE_FORMATS_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// `path` is a .safetensors file, a *.safetensors.index.json, or a folder that
// holds model.safetensors or model.safetensors.index.json. Tensors of integer
// and boolean types other than I32 (position ids, causal masks) are checked and
// left out of tensors(). Sha256Hex() covers the tensor files, not the index.
// Errors: INVALID_ARGUMENT for content, NOT_FOUND, PERMISSION_DENIED; messages
// start with the name of the file.
// start with the name of the file.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(
    const std::string& path);

struct SafetensorsContents {
  std::vector<TensorInfo> tensors;  // in order of offset
  std::vector<std::string> others;  // names of the tensors left out
};

// Parses one whole file in memory. The result points into `file`.
absl::StatusOr<SafetensorsContents> ParseSafetensors(
    absl::string_view name, absl::Span<const uint8_t> file);

struct ShardIndex {
  std::vector<std::string> files;  // sorted, without folders
  // Tensor names with their index into `files`, sorted by name.
  std::vector<std::pair<std::string, size_t>> tensors;
};

absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view name,
                                           absl::string_view json);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_SAFETENSORS_H_
