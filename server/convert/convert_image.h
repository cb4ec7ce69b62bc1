// Checks an input's images and converts them for the engine.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/types/spec.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/convert/convert.h"

namespace qk {

inline constexpr int kMaxImages = 16;

struct ConvertedImages {
  std::vector<Image> images;
  // The prompt, with one placeholder per row of the images.
  std::vector<int32_t> tokens;
  std::vector<pb::Image> expanded;  // with sha256 instead of the bytes
};

// `tokens` is the prompt, with one placeholder per image or per row of the
// images. FAILED_PRECONDITION if the model takes no images.
absl::StatusOr<ConvertedImages> ConvertImages(const pb::Input& input,
                                              std::vector<int32_t> tokens,
                                              const ModelView& model);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_
