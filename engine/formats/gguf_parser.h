// The second half of ParseGguf.
#ifndef QKSCOPE_ENGINE_FORMATS_GGUF_PARSER_H_
#define QKSCOPE_ENGINE_FORMATS_GGUF_PARSER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/formats/gguf_reader.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// `reader` stands after the metadata of `file`. `alignment`, a power of two, is
// the alignment of the tensors' offsets.
absl::StatusOr<std::vector<TensorInfo>> ReadGgufTensors(
    absl::Span<const uint8_t> file, uint64_t count, uint64_t alignment,
    GgufReader& reader);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_GGUF_PARSER_H_
