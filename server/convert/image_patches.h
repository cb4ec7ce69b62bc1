// From an image's pixels to the patches that a vision tower takes, as
// transformers' Qwen2VLImageProcessor makes them.
#ifndef QKSCOPE_SERVER_CONVERT_IMAGE_PATCHES_H_
#define QKSCOPE_SERVER_CONVERT_IMAGE_PATCHES_H_

#include "absl/status/statusor.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"
#include "server/convert/image_decode.h"

namespace qk {

struct ImageSize {
  int width = 0;
  int height = 0;
  bool operator==(const ImageSize&) const = default;
};

// Sides that are multiples of `factor`, with an area of min_pixels to
// max_pixels as far as that allows, about in proportion. INVALID_ARGUMENT:
// sides of more than 200 to 1.
absl::StatusOr<ImageSize> SmartResize(ImageSize size, int factor,
                                      int64_t min_pixels, int64_t max_pixels);

// Bicubic (a = -0.5), widened where it shrinks, in fixed point: PIL's bytes.
Pixels ResizeBicubic(Pixels pixels, ImageSize size);

// One frame, repeated to fill a patch in time; normalised with the mean and
// deviation of config.processing. Sides must be multiples of patch_size x
// merge_size; channels 3.
Image MakePatches(const Pixels& pixels, const VisionConfig& config);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_IMAGE_PATCHES_H_
