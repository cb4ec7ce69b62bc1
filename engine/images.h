// Checks a request's images and finds their places among its tokens.
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

// The number of the prompt's rows that an image fills.
int MergedRows(const Image& image, const VisionConfig& config);

// Checks image `index`'s grid and the number of its patches.
// INVALID_ARGUMENT: `images[I]: ...`.
absl::Status CheckGrid(const Image& image, size_t index,
                       const VisionConfig& config);

// Calls CheckGrid for each image, and checks that `tokens` hold as many
// placeholders as the images have rows. INVALID_ARGUMENT: `images[I]: ...`.
absl::Status CheckImages(absl::Span<const Image> images,
                         absl::Span<const int32_t> tokens,
                         const VisionConfig& config);

// The places of the images' rows among the tokens: runs of placeholders
// [begin, end), image after image.
std::vector<Range> PlaceImages(absl::Span<const Image> images,
                               absl::Span<const int32_t> tokens,
                               const VisionConfig& config);

// The position of each token (M-RoPE, arXiv:2409.12191, section 2.1). Text
// counts on from the largest coordinate so far. An image's row has the image's
// first position plus its own frame, row and column.
std::vector<RopePosition> ImagePositions(absl::Span<const Image> images,
                                         absl::Span<const int32_t> tokens,
                                         const VisionConfig& config);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_IMAGES_H_
