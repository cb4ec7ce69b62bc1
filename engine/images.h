// How the images of a request lie in its tokens.
#ifndef QKSCOPE_ENGINE_IMAGES_H_
#define QKSCOPE_ENGINE_IMAGES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/types/model_config.h"
#include "engine/types/rope_rows.h"
#include "engine/types/spec.h"

namespace qk {

// Rows of the text that an image takes the place of.
int MergedRows(const Image& image, const VisionConfig& config);

// Checks image `index`'s grid and the number of its patches.
// INVALID_ARGUMENT: `images[I]: ...`.
absl::Status CheckGrid(const Image& image, size_t index,
                       const VisionConfig& config);

// CheckGrid of all, and that `tokens` hold as many
// placeholders as the images have rows. INVALID_ARGUMENT: `images[I]: ...`.
absl::Status CheckImages(absl::Span<const Image> images,
                         absl::Span<const int32_t> tokens,
                         const VisionConfig& config);

// Where each image's rows lie in the tokens, one image after another: runs of
// placeholders, [begin, end).
std::vector<Range> PlaceImages(absl::Span<const Image> images,
                               absl::Span<const int32_t> tokens,
                               const VisionConfig& config);

// The position of each token (M-RoPE, arXiv:2409.12191, 2.1): text counts on
// from the largest coordinate so far; an image's rows have its first position,
// plus their frame, row and column.
std::vector<RopePosition> ImagePositions(absl::Span<const Image> images,
                                         absl::Span<const int32_t> tokens,
                                         const VisionConfig& config);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_IMAGES_H_
