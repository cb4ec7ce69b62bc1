// Turns an image's pixels into a vision tower's patches, as transformers'
// Qwen2VLImageProcessor does.
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

// Returns the size to resize to: sides that are multiples of `factor`, an area
// between min_pixels and max_pixels as far as that allows, and roughly the same
// proportions. INVALID_ARGUMENT if one side is over 200 times the other.
absl::StatusOr<ImageSize> SmartResize(ImageSize size, int factor,
                                      int64_t min_pixels, int64_t max_pixels);

// Resizes with a bicubic filter (a = -0.5) in fixed point; the filter is
// widened when shrinking. Gives the same bytes as PIL.
Pixels ResizeBicubic(Pixels pixels, ImageSize size);

// Cuts the image into patches. The single frame is repeated to fill a patch in
// time, and values are normalised with the mean and standard deviation in
// config.processing. Sides must be multiples of patch_size x merge_size, and
// the model must have 3 channels.
Image MakePatches(const Pixels& pixels, const VisionConfig& config);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_IMAGE_PATCHES_H_
